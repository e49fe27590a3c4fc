// The life of a connection: open, watch, back off, renew the token, fall back to long polling.
//
// A source of events (`Source` in seqstream.d.ts), and the seam for others: a tab that follows
// another tab's stream implements the same four methods and calls the same sink. It applies no
// event; it reads those of the connection itself, `stream.*`, and hands on all.

import { backoffMs } from "./backoff.js";
import { pause } from "./clock.js";
import { SeqstreamError, errorOf } from "./errors.js";
import { Poller } from "./polling.js";
import { readStream } from "./stream_reader.js";

const FIRST_BYTE_MS = 10_000; // without a byte of the body until then, a proxy holds it back
const WATCHDOG_MS = 45_000; // three heartbeats
const STALE_MS = 20_000; // more than one heartbeat: not believed when there is reason to doubt
const RETRY_MS = 1000; // until the service says another
const MAX_RETRY_MS = 60_000;
const PROBE_MS = 30_000; // while polling, the stream is tried again after this, twice this, …
const MAX_PROBE_MS = 300_000;
const MAX_UNAUTHORIZED = 5;
const RENEW_AGAIN_MS = 10_000;

export class Connection {
  #api;
  #credentials;
  #clock;
  #sink;
  #poller;
  #isStarted = false;
  #isStopped = false;
  #controller = null; // of the stream's request
  #cut = null; // why it was aborted here
  #lastByteAt = null; // null: no byte yet
  #failures = 0;
  #probes = 0;
  #unauthorized = 0;
  #renewedAt = -Infinity;
  #retryMs = RETRY_MS;
  #rest = null; // the wait before the next attempt: {pause, least}
  #told = null; // the `stream.closing` or `stream.refused` of this stream

  constructor({ api, credentials, clock }, sink) {
    this.#api = api;
    this.#credentials = credentials;
    this.#clock = clock;
    this.#sink = sink;
    this.#poller = new Poller(
      { api, clock },
      sink,
      (status, reason, retryAt) => this.#tell(status, reason, retryAt, "poll"),
      () => this.#pollRefused(),
    );
  }

  start() {
    if (this.#isStarted) return;
    this.#isStarted = true;
    void this.#run();
  }

  stop() {
    this.#isStopped = true;
    this.#poller.stop();
    this.#abort("stopped");
    this.#rest?.pause.end();
  }

  wake() {
    this.#poller.wake();
    if (this.#rest !== null) {
      // What the service told to wait is waited for.
      if (this.#clock.now() >= this.#rest.least) this.#rest.pause.end();
    } else if (this.#lastByteAt !== null && this.#clock.now() - this.#lastByteAt > STALE_MS) {
      this.#abort("stale");
    }
  }

  reconnect() {
    if (this.#rest !== null) this.#rest.pause.end();
    else this.#abort("asked");
  }

  async #run() {
    while (!this.#isStopped) {
      const end = await this.#stream();
      if (this.#isStopped) return;
      if (end.final) await this.#endFor(end);
      else await this.#waitAfter(end);
    }
  }

  /** Refused or closed for good: until `reconnect()`. */
  async #endFor({ final, reason }) {
    this.#poller.stop();
    this.#tell(final, reason);
    await this.#wait(null, Infinity);
    this.#failures = this.#unauthorized = 0;
  }

  async #waitAfter(end) {
    if (end.isSilent) this.#poller.start();
    const { random } = this.#clock;
    let delay;
    if (this.#poller.isRunning) {
      const probe = Math.min(PROBE_MS * 2 ** this.#probes++, MAX_PROBE_MS);
      delay = probe * (0.5 + random() / 2);
    } else if (end.isNow) return;
    else if (end.exactMs !== undefined) delay = end.exactMs;
    else delay = backoffMs(this.#failures++, { random, baseMs: this.#retryMs, toldMs: end.toldMs });
    if (!this.#poller.isRunning) this.#tell("waiting", end.reason, this.#clock.now() + delay);
    await this.#wait(delay, this.#clock.now() + (end.toldMs ?? 0));
  }

  async #wait(ms, least) {
    this.#rest = { pause: pause(this.#clock, ms), least };
    await this.#rest.pause.promise;
    this.#rest = null;
  }

  /**
   * One stream, from the request to its end. Returns how it ended: `final` ("refused" or "closed"),
   * `isSilent` (no byte came), `isNow` (go on at once), `exactMs` or `toldMs` (the service's word).
   */
  async #stream() {
    if (!this.#poller.isRunning) this.#tell("connecting");
    const controller = (this.#controller = new AbortController());
    this.#cut = this.#told = this.#lastByteAt = null;
    const timers = new Timers(this.#clock);
    try {
      await this.#credentials.prepare();
      if (controller.signal.aborted) return this.#ended();
      timers.set("first byte", FIRST_BYTE_MS, () => this.#abort("silent"));
      const response = await this.#api.openStream(query(this.#sink.cursor()), controller.signal);
      if (response.status !== 200) return await this.#refusal(response);
      if (!isEventStream(response)) {
        controller.abort();
        return { reason: "not_a_stream" };
      }
      this.#watchToken(timers);
      await readStream(response, {
        onBytes: () => this.#heard(timers),
        onBlock: (event, id, data) => this.#block(event, id, data),
        onRetry: (ms) => {
          this.#retryMs = Math.min(ms, MAX_RETRY_MS);
        },
      });
    } catch (error) {
      if (error instanceof SeqstreamError && error.code === "TOKEN") return { reason: "token" };
      if (!controller.signal.aborted) controller.abort(); // the parser gave up
    } finally {
      timers.clear();
      this.#controller = this.#lastByteAt = null;
    }
    return this.#ended();
  }

  /** How to go on after a stream that was open, or never came. */
  async #ended() {
    if (this.#cut === "silent") return { isSilent: true, reason: "silent" };
    if (this.#cut !== null) return { isNow: true, reason: this.#cut };
    const told = this.#told;
    if (told === null) return { reason: "network" };
    if (told.event === "stream.refused") {
      return { reason: told.data.code, toldMs: Math.min(told.data.retryAfterMs ?? 0, 600_000) };
    }
    const { reason, reconnect } = told.data;
    if (reconnect) return { reason, exactMs: this.#retryMs };
    if (reason !== "token_expired" || !this.#credentials.isRenewable) return { final: "closed", reason };
    return this.#renewed(reason);
  }

  async #refusal(response) {
    const error = await errorOf(response, this.#clock.now());
    if (error.isPassing) return { reason: error.code, toldMs: error.retryAfterMs };
    if (error.status === 401 && this.#credentials.isRenewable) {
      if (++this.#unauthorized <= MAX_UNAUTHORIZED) return this.#renewed(error.code);
    }
    return { final: "refused", reason: error.code };
  }

  /** After a refused or ended token: with another one at once, then with a growing delay. */
  async #renewed(reason) {
    const now = this.#clock.now();
    const isSoon = now - this.#renewedAt < RENEW_AGAIN_MS;
    this.#renewedAt = now;
    try {
      await this.#credentials.renew();
    } catch {
      return { reason: "token" };
    }
    return isSoon ? { reason } : { isNow: true, reason };
  }

  /** Renew the token while the stream is open, and open it again with the new one. */
  #watchToken(timers) {
    const { renewAt, version } = this.#credentials;
    if (renewAt === null) return;
    const renew = async () => {
      // Timers drop fractions, and may come a little early.
      const left = renewAt - this.#clock.now();
      if (left > 0) {
        timers.set("token", Math.ceil(left), renew);
        return;
      }
      try {
        await this.#credentials.prepare();
        // Another request may have renewed it; or the function gave the same again.
        if (this.#credentials.version !== version) this.#abort("renewed");
      } catch {
        // The old one is good for a while; if no other comes, the service ends the stream.
        timers.set("token", RENEW_AGAIN_MS, renew);
      }
    };
    void renew();
  }

  #heard(timers) {
    const isFirst = this.#lastByteAt === null;
    this.#lastByteAt = this.#clock.now();
    if (!isFirst) return;
    timers.end("first byte");
    const check = () => {
      const left = this.#lastByteAt + WATCHDOG_MS - this.#clock.now();
      if (left <= 0) this.#abort("watchdog");
      else timers.set("watchdog", left, check);
    };
    timers.set("watchdog", WATCHDOG_MS, check);
    // The stream comes through again.
    this.#poller.stop();
    this.#probes = 0;
  }

  #block(event, id, data) {
    if (this.#isStopped || this.#cut !== null) return;
    if (event === "stream.open") {
      this.#unauthorized = 0;
      this.#tell("replaying");
    } else if (event === "stream.closing" || event === "stream.refused") {
      this.#told = { event, data: parsed(data) };
    }
    this.#sink.onBlock(event, id, data);
    if (event === "stream.live") {
      this.#failures = 0;
      this.#tell("live");
    }
  }

  #pollRefused() {
    this.#poller.stop();
    this.#abort("asked");
    // The stream says the same, with what there is to do about it.
    this.#rest?.pause.end();
  }

  #abort(why) {
    if (this.#controller === null || this.#cut !== null) return;
    this.#cut = why;
    this.#controller.abort();
  }

  #tell(status, reason, retryAt, transport = "stream") {
    if (this.#isStopped) return;
    this.#sink.onStatus({
      status, transport, ...(reason !== undefined && { reason }), ...(retryAt !== undefined && { retryAt }),
    });
  }
}

/** The timers of one stream, by name; all end with it. */
class Timers {
  #clock;
  #timers = new Map();

  constructor(clock) {
    this.#clock = clock;
  }

  set(name, ms, callback) {
    this.end(name);
    // Longer than this, browsers call at once; the callbacks look at the time themselves.
    this.#timers.set(name, this.#clock.setTimeout(callback, Math.min(ms, 2 ** 31 - 1)));
  }

  end(name) {
    this.#clock.clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }

  clear() {
    for (const name of [...this.#timers.keys()]) this.end(name);
  }
}

// In the query, not a header: it needs no permission of the browser on another origin.
function query(cursor) {
  if (cursor === null) return {};
  return "after" in cursor ? { last_event_id: cursor.after } : { tail: cursor.tail };
}

function isEventStream(response) {
  return (response.headers.get("content-type") ?? "").startsWith("text/event-stream");
}

function parsed(data) {
  try {
    return JSON.parse(data) ?? {};
  } catch {
    return {};
  }
}
