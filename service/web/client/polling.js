// Long polling of the history, for readers whose proxy holds a stream back.
//
// Messages and changes come this way; pieces of answers, typing and presence do not. What it fetches
// goes to the sink as `history.page` blocks, so that it can be handed on like the stream's events.

import { backoffMs } from "./backoff.js";
import { pause } from "./clock.js";

const WAIT_S = 25;
const TIMEOUT_MS = 40_000;
const PAGE = 200;
// A service that does not hold the answer must not be asked in a circle.
const LEAST_MS = 2000;

export class Poller {
  #api;
  #clock;
  #sink;
  #onStatus;
  #onRefused;
  #run = null; // of the loop that runs: {controller, pause}

  /** `onStatus(status, reason, retryAt)`; `onRefused(error)` when the service refuses for good. */
  constructor({ api, clock }, sink, onStatus, onRefused) {
    this.#api = api;
    this.#clock = clock;
    this.#sink = sink;
    this.#onStatus = onStatus;
    this.#onRefused = onRefused;
  }

  get isRunning() {
    return this.#run !== null;
  }

  start() {
    if (this.isRunning) return;
    const run = { controller: new AbortController(), pause: null };
    this.#run = run;
    this.#onStatus("polling");
    void this.#loop(run);
  }

  stop() {
    const run = this.#run;
    this.#run = null;
    run?.controller.abort();
    run?.pause?.end();
  }

  /** Ask again now, if it waits after a failure. */
  wake() {
    this.#run?.pause?.end();
  }

  async #loop(run) {
    for (let failures = 0; this.#run === run; ) {
      const began = this.#clock.now();
      try {
        const page = await this.#read(run.controller.signal);
        if (this.#run !== run) return;
        failures = 0;
        this.#onStatus("polling");
        this.#sink.onBlock("history.page", "", page);
        if (page.messages.length === 0) await this.#rest(run, began + LEAST_MS - this.#clock.now());
      } catch (error) {
        if (this.#run !== run) return;
        if (!error.isPassing) {
          this.#onRefused(error);
          return;
        }
        const { random } = this.#clock;
        const delay = backoffMs(failures++, { random, toldMs: error.retryAfterMs });
        this.#onStatus("waiting", error.code, this.#clock.now() + delay);
        await this.#rest(run, delay);
      }
    }
  }

  async #read(signal) {
    const cursor = this.#sink.cursor();
    if (cursor === null || !("after" in cursor)) return this.#start(cursor?.tail ?? 0, signal);
    const { after } = cursor;
    const query = { after_seq: after, limit: PAGE, order: "asc", wait: WAIT_S, types: "all" };
    const page = await this.#get(query, signal);
    const last = page.hasMore ? page.nextAfterSeq : Math.max(page.headSeq, after);
    return { ...page, after, before: last + 1 };
  }

  async #start(tail, signal) {
    const page = await this.#get({ limit: Math.max(tail, 1), order: "desc", types: "all" }, signal);
    const messages = tail > 0 ? page.messages.reverse() : [];
    return { ...page, messages, newest: true };
  }

  #get(query, signal) {
    return this.#api.request("GET", "/chat/messages", { query, signal, timeoutMs: TIMEOUT_MS });
  }

  async #rest(run, ms) {
    if (ms <= 0) return;
    run.pause = pause(this.#clock, ms);
    await run.pause.promise;
    run.pause = null;
  }
}
