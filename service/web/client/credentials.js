// Who the caller is: a cookie, a fixed token, or tokens from a function, renewed before they end.
//
// Puts the credentials on requests. When to renew because of a refusal is decided by api.js and
// connection.js. Tokens are never logged and never part of an error.

import { pause } from "./clock.js";
import { SeqstreamError } from "./errors.js";

const RENEW_TIMEOUT_MS = 20_000;
const MARGIN_MS = 60_000;
const MARGIN_SHARE = 0.2; // of the token's life, for tokens that live less than five minutes

export class Credentials {
  /** Another number with every new token. */
  version = 0;
  #clock;
  #renew = null; // () => Token, or for a cookie nothing
  #isCookie;
  #viaQuery = false;
  #token = null;
  #renewAt = null; // ms since 1970
  #renewing = null;

  constructor(options = "cookie", clock) {
    this.#clock = clock;
    this.#isCookie = options === "cookie" || "renewCookie" in options;
    if (this.#isCookie) {
      if (options !== "cookie") this.#renew = options.renewCookie;
      return;
    }
    this.#viaQuery = options.via === "query";
    if (typeof options.token === "function") this.#renew = options.token;
    else this.#take(options.token);
  }

  /** Whether there is a way to get other credentials than those of now. */
  get isRenewable() {
    return this.#renew !== null;
  }

  /** When the token should be renewed, in ms since 1970; null if that is not known. */
  get renewAt() {
    return this.isRenewable ? this.#renewAt : null;
  }

  /** The user id in the token; null without a token that can be read. */
  get subject() {
    return claims(this.#token)?.sub ?? null;
  }

  /** Make sure that there is a token which does not end soon. Throws a `SeqstreamError`. */
  async prepare() {
    if (this.#isCookie || !this.isRenewable) return;
    const due = this.#renewAt !== null && this.#clock.now() >= this.#renewAt;
    if (this.#token === null || due) await this.renew();
  }

  /** Get new credentials now. Callers at the same time share one call. */
  renew() {
    this.#renewing ??= this.#call().finally(() => {
      this.#renewing = null;
    });
    return this.#renewing;
  }

  /** Add the credentials to a request. `?token=` is for the stream alone: addresses are logged. */
  apply(url, headers, { isStream = false } = {}) {
    if (this.#token === null) return;
    if (isStream && this.#viaQuery) url.searchParams.set("token", this.#token);
    else headers.Authorization = `Bearer ${this.#token}`;
  }

  /** `credentials` of fetch. */
  get mode() {
    return this.#isCookie ? "include" : "same-origin";
  }

  async #call() {
    const limit = pause(this.#clock, RENEW_TIMEOUT_MS);
    const timedOut = limit.promise.then(() => {
      throw new SeqstreamError("No new token in time", { code: "TOKEN" });
    });
    try {
      const token = await Promise.race([(async () => this.#renew())(), timedOut]);
      if (!this.#isCookie) this.#take(token);
    } catch (cause) {
      if (cause instanceof SeqstreamError) throw cause;
      throw new SeqstreamError("The token could not be renewed", { code: "TOKEN", cause });
    } finally {
      timedOut.catch(() => {});
      limit.end();
    }
  }

  #take(given) {
    const token = typeof given === "string" ? given : given?.token;
    if (typeof token !== "string" || token === "") {
      throw new SeqstreamError("The token's function returned none", { code: "TOKEN" });
    }
    if (token !== this.#token) this.version++;
    this.#token = token;
    const now = this.#clock.now();
    const endsAt = expiry(given, token);
    // A new token that seems to have ended shows that this machine's clock is wrong. Then only the
    // service can tell when a token ends, and does.
    this.#renewAt = endsAt === null || endsAt <= now
      ? null
      : endsAt - Math.min(MARGIN_MS, (endsAt - now) * MARGIN_SHARE);
  }
}

function expiry(given, token) {
  const told = typeof given === "object" ? given.expiresAt : undefined;
  if (told !== undefined && told !== null) {
    const ms = typeof told === "number" ? told : new Date(told).getTime();
    if (Number.isFinite(ms)) return ms;
  }
  const exp = claims(token)?.exp;
  return typeof exp === "number" ? exp * 1000 : null;
}

// Not verified, and need not be: only the service relies on a token.
function claims(token) {
  const part = typeof token === "string" ? token.split(".")[1] : undefined;
  if (!part) return null;
  try {
    const bytes = Uint8Array.from(atob(part.replace(/-/g, "+").replace(/_/g, "/")), (c) => c.charCodeAt(0));
    const read = JSON.parse(new TextDecoder().decode(bytes));
    return read !== null && typeof read === "object" ? read : null;
  } catch {
    return null;
  }
}
