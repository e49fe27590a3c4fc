// Requests of one project to the service's HTTP API: credentials, time limits, errors.
//
// A 401 renews the credentials once and tries again. Everything else is for the caller to repeat or
// not (`SeqstreamError.isPassing`).

import { SeqstreamError, errorOf } from "./errors.js";

const TIMEOUT_MS = 15_000;

export class Api {
  #base;
  #project;
  #credentials;
  #fetch;
  #clock;

  constructor({ base, project, credentials, fetch, clock }) {
    this.#base = base;
    this.#project = encodeURIComponent(project);
    this.#credentials = credentials;
    this.#fetch = fetch;
    this.#clock = clock;
  }

  /** Send a request below the project; returns the decoded body, null for none. */
  request(method, path, options = {}) {
    return this.call(method, `/v1/projects/${this.#project}${path}`, options);
  }

  /** Send a request. Throws `SeqstreamError`, with code `CLOSED` when `signal` ended it. */
  async call(method, path, { query, body, signal, timeoutMs = TIMEOUT_MS } = {}) {
    const url = this.#url(path, query);
    const text = body === undefined ? undefined : JSON.stringify(body);
    for (let attempt = 0; ; attempt++) {
      await this.#credentials.prepare();
      const { response, value } = await this.#once(method, url, text, signal, timeoutMs);
      if (response.ok) return value;
      if (response.status !== 401 || attempt > 0 || !this.#credentials.isRenewable) throw value;
      await this.#credentials.renew();
    }
  }

  /** Open the stream: the response, whatever its status. Throws what fetch throws. */
  openStream(query, signal) {
    const url = this.#url(`/v1/projects/${this.#project}/chat/stream`, query);
    const headers = { Accept: "text/event-stream" };
    this.#credentials.apply(url, headers, { isStream: true });
    return this.#fetch(url.href, {
      headers, signal, credentials: this.#credentials.mode, cache: "no-store",
    });
  }

  #url(path, query = {}) {
    const url = new URL(this.#base + path);
    for (const [name, value] of Object.entries(query)) {
      if (value !== undefined) url.searchParams.set(name, String(value));
    }
    return url;
  }

  async #once(method, url, body, signal, timeoutMs) {
    const headers = { Accept: "application/json" };
    if (body !== undefined) headers["Content-Type"] = "application/json";
    this.#credentials.apply(url, headers);
    const controller = new AbortController();
    const abort = () => controller.abort();
    if (signal?.aborted) abort();
    signal?.addEventListener("abort", abort);
    const timer = this.#clock.setTimeout(abort, timeoutMs);
    try {
      const response = await this.#fetch(url.href, {
        method, headers, body, signal: controller.signal, credentials: this.#credentials.mode,
      });
      if (!response.ok) return { response, value: await errorOf(response, this.#clock.now()) };
      const text = await response.text();
      return { response, value: text === "" ? null : JSON.parse(text) };
    } catch (cause) {
      if (signal?.aborted) throw new SeqstreamError("The request was given up", { code: "CLOSED", cause });
      const late = controller.signal.aborted;
      throw new SeqstreamError(late ? "No answer in time" : "The service was not reached", {
        code: late ? "TIMEOUT" : "NETWORK", cause,
      });
    } finally {
      this.#clock.clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
    }
  }
}
