// Reads the history: what the stream left out, older messages, and the newest page after a reset.
//
// Gaps are filled in pages, a few at a time and the newest first, while live events go on. What is
// missing is known by the model; how long to go on after failures is decided here.

import { backoffMs } from "./backoff.js";
import { pause } from "./clock.js";
import { SeqstreamError } from "./errors.js";

const PAGE = 200;
const CONCURRENT_PAGES = 3;

export class History {
  #api;
  #clock;
  #model;
  #onPage;
  #filling = null;
  #starting = null;
  #older = null;
  #isRefused = false; // a gap could not be read for good: not tried again on this connection
  #stopping = new AbortController();
  #waits = new Set();

  /** `onPage()` is called after each page that the model was given. */
  constructor({ api, clock, model, onPage }) {
    this.#api = api;
    this.#clock = clock;
    this.#model = model;
    this.#onPage = onPage;
  }

  stop() {
    this.#stopping.abort();
    for (const wait of this.#waits) wait.end();
  }

  /** A connection was opened: what was refused may be tried again. */
  allow() {
    this.#isRefused = false;
  }

  /** Fill all gaps, those that come up meanwhile too. Goes on by itself. */
  fill() {
    if (this.#filling !== null || this.#isRefused || this.#model.gaps().length === 0) return;
    this.#filling = this.#persist(() => this.#fillSome()).finally(() => {
      this.#filling = null;
      if (!this.#stopping.signal.aborted) this.fill();
    });
  }

  /** Load the newest messages. Goes on by itself until they are there. */
  start(limit) {
    this.#starting ??= this.#persist(async () => {
      const page = await this.#read({ order: "desc", limit });
      this.#take({ ...page, messages: page.messages.reverse(), newest: true });
      return false;
    }).finally(() => {
      this.#starting = null;
    });
  }

  get isLoadingOlder() {
    return this.#older !== null;
  }

  /** Load messages before the oldest one; resolves with whether there are more. Throws. */
  older(limit) {
    this.#older ??= this.#loadOlder(limit).finally(() => {
      this.#older = null;
      this.#onPage();
    });
    return this.#older;
  }

  async #loadOlder(limit) {
    const { list } = this.#model;
    const size = Math.min(limit, list.room, 500);
    if (list.floor === null || list.floor === 0 || size < 1) return false;
    const before = list.floor + 1;
    const page = await this.#read({ before_seq: before, order: "desc", limit: size });
    if (list.floor + 1 !== before) return true; // a reset, or the list was cut meanwhile
    const messages = page.messages.reverse();
    const after = page.hasMore && messages.length > 0 ? messages[0].seq - 1 : 0;
    this.#take({ ...page, messages, after, older: true });
    return after > 0;
  }

  async #fillSome() {
    const ranges = pagesFor(this.#model.gaps(), CONCURRENT_PAGES);
    if (ranges.length === 0) return false;
    // Each page is shown as it comes; one that fails leaves its gap to the next round.
    const done = await Promise.allSettled(ranges.map((range) => this.#fillOne(range)));
    const failed = done.find((each) => each.status === "rejected");
    if (failed !== undefined) throw failed.reason;
    return true;
  }

  async #fillOne({ after, before }) {
    const page = await this.#read({ after_seq: after, before_seq: before, order: "asc", limit: PAGE });
    // A page may be cut short, by bytes; and whoever answers may not have everything yet.
    const end = Math.min(page.hasMore ? page.nextAfterSeq + 1 : before, page.headSeq + 1);
    if (!(end - 1 > after)) throw new SeqstreamError("The history has not got there yet");
    this.#take({ ...page, after, before: end });
  }

  #read(query) {
    const options = { query: { ...query, types: "all" }, signal: this.#stopping.signal };
    return this.#api.request("GET", "/chat/messages", options);
  }

  #take(page) {
    if (this.#stopping.signal.aborted) return;
    this.#model.page(page);
    this.#onPage();
  }

  /** Call `step` until it returns false; after a failure that may pass, again after a while. */
  async #persist(step) {
    for (let failures = 0; !this.#stopping.signal.aborted; ) {
      try {
        if (!(await step())) return;
        failures = 0;
      } catch (error) {
        if (!(error instanceof SeqstreamError)) throw error;
        if (!error.isPassing) {
          this.#isRefused = true;
          return;
        }
        const { random } = this.#clock;
        const wait = pause(this.#clock, backoffMs(failures++, { random, toldMs: error.retryAfterMs }));
        this.#waits.add(wait);
        await wait.promise;
        this.#waits.delete(wait);
      }
    }
  }
}

/**
 * The next pages to read: at most `count`, newest first, bounds exclusive. Gaps that lie close
 * together share a page.
 */
export function pagesFor(gaps, count, size = PAGE) {
  const pages = [];
  const newestFirst = [...gaps].reverse();
  let end = Infinity; // what is above is in a page
  while (pages.length < count) {
    const gap = newestFirst.find((each) => each.after + 1 < end);
    if (gap === undefined) break;
    const before = Math.min(gap.before, end);
    const low = before - 1 - size;
    const within = gaps.filter((each) => each.before > low + 1 && each.after < before - 1);
    const after = Math.max(low, Math.min(...within.map((each) => each.after)));
    pages.push({ after, before });
    end = after + 1;
  }
  return pages;
}
