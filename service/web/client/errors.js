// The one error that leaves the client, and what HTTP says of a failure.

import { retryAfterMs } from "./backoff.js";

export class SeqstreamError extends Error {
  constructor(message, { status = 0, code = "NETWORK", details, requestId, retryAfterMs = 0, cause } = {}) {
    super(message, cause === undefined ? undefined : { cause });
    this.name = "SeqstreamError";
    this.status = status;
    this.code = code;
    this.details = details;
    this.requestId = requestId;
    this.retryAfterMs = retryAfterMs;
  }

  /** Whether the same request may succeed later: no response, 429, 5xx. Never another 4xx. */
  get isPassing() {
    return (this.status === 0 && this.code !== "CLOSED" && this.code !== "DISCARDED") ||
      this.status === 429 || this.status >= 500;
  }
}

/** The error of a response that is not 2xx. Reads its body. */
export async function errorOf(response, nowMs) {
  let body = null;
  try {
    body = await response.json();
  } catch {
    // A proxy's page, or nothing: the status has to do.
  }
  const said = body !== null && typeof body === "object" ? body : {};
  return new SeqstreamError(said.error ?? `The service answered ${response.status}`, {
    status: response.status,
    code: said.code ?? `HTTP_${response.status}`,
    details: said.details,
    requestId: said.requestId ?? response.headers.get("x-request-id") ?? undefined,
    retryAfterMs: retryAfterMs(response.headers.get("retry-after"), nowMs),
  });
}
