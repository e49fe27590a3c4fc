// How long to wait before the next attempt. Pure: chance is given.

const CAP_MS = 30_000;

/**
 * Exponential with full jitter: anything from nothing to `baseMs`, doubled with each attempt
 * (counted from 0) up to `capMs`. With a delay that the service told (`toldMs`) that one is the
 * least, and the jitter comes on top, so that clients told the same do not come back together.
 */
export function backoffMs(attempt, { random, baseMs = 1000, capMs = CAP_MS, toldMs = 0 }) {
  const bound = Math.min(capMs, baseMs * 2 ** Math.min(attempt, 16));
  return Math.round(toldMs + random() * bound);
}

/** The milliseconds of a `Retry-After` header (seconds or a date); 0 without one that is usable. */
export function retryAfterMs(value, nowMs) {
  if (!value) return 0;
  const ms = /^[0-9]+$/.test(value.trim()) ? Number(value) * 1000 : Date.parse(value) - nowMs;
  return Number.isFinite(ms) ? Math.min(Math.max(ms, 0), 300_000) : 0;
}
