// One stream for all tabs: the source of events that `shareTabs` chooses.
//
// Browsers open six HTTP/1.1 connections to a host, so the seventh tab with a stream of its own
// would hang. The tab that holds a Web Lock leads: it has the connection, and sends all it receives
// over a BroadcastChannel. When it closes, the browser gives the lock to the next tab, which
// connects with its own cursor. Sends go by HTTP from every tab.
//
// A tab that follows needs no replay: it begins with the leader's `stream.live`, and what is below
// is a gap that history.js reads. Users have channels of their own.

import { parsed } from "./platform.js";
import { Recent } from "./recent.js";

const SILENT_MS = 45_000; // three heartbeats: does the leader still run?
const REPLY_MS = 5000;
const CHECK_MS = 15_000;

/** Whether this browser can share. Web Locks need a secure context. */
export function canShare() {
  return globalThis.navigator?.locks !== undefined && globalThis.BroadcastChannel !== undefined;
}

/** A source of events for one user's view of one project; `connect(sink)` makes the connection. */
export class SharedSource {
  #name;
  #connect;
  #clock;
  #sink;
  #channel = null;
  #id = Math.random().toString(36).slice(2);
  #isStopped = false;
  #stopping = new AbortController();
  #leading = null; // {connection, recent, status, headSeq, release}
  #hasBegun = false; // the leader's `stream.live` was seen: blocks are applied from then on
  #heardAt = 0;
  #timer = null;

  constructor({ base, userId, project, connect, clock }, sink) {
    this.#name = `seqstream:${JSON.stringify([base, userId, project])}`;
    this.#connect = connect;
    this.#clock = clock;
    this.#sink = sink;
  }

  start() {
    this.#channel = new BroadcastChannel(this.#name);
    this.#channel.onmessage = ({ data }) => this.#received(data);
    this.#heardAt = this.#clock.now();
    void this.#queue();
    this.#ask();
    this.#check();
  }

  stop() {
    if (this.#isStopped) return;
    this.#isStopped = true;
    this.#stopping.abort();
    this.#clock.clearTimeout(this.#timer);
    this.#endLeading();
    this.#channel?.close();
  }

  wake() {
    if (this.#leading !== null) this.#leading.connection.wake();
    else {
      this.#post({ kind: "wake" });
      this.#ask();
    }
  }

  reconnect() {
    if (this.#leading !== null) this.#leading.connection.reconnect();
    else this.#post({ kind: "reconnect" });
  }

  // Leading.

  /** Wait for the lock, lead while it is held, and wait again if another tab took it. */
  async #queue({ steal = false } = {}) {
    const options = steal ? { steal } : { signal: this.#stopping.signal };
    while (!this.#isStopped) {
      try {
        await navigator.locks.request(this.#name, options, () => this.#lead());
        return;
      } catch (error) {
        // Another tab took the lock, because this one gave no sign: it follows from now on.
        this.#endLeading();
        if (this.#isStopped || error.name !== "AbortError") return;
        if (steal) return; // the request in the queue is still there
      }
    }
  }

  #lead() {
    if (this.#isStopped || this.#leading !== null) return undefined;
    return new Promise((release) => {
      const recent = new Recent();
      const leading = { recent, status: null, headSeq: null, release, connection: null };
      this.#leading = leading;
      leading.connection = this.#connect({
        onBlock: (event, id, data) => this.#block(leading, event, id, data),
        onStatus: (state) => {
          leading.status = state;
          this.#post({ kind: "status", state });
          this.#sink.onStatus(state);
        },
        cursor: () => this.#sink.cursor(),
      });
      leading.connection.start();
    });
  }

  #endLeading() {
    const leading = this.#leading;
    if (leading === null) return;
    this.#leading = null;
    leading.connection.stop();
    leading.release();
  }

  #block(leading, event, id, data) {
    if (this.#leading !== leading) return;
    const value = typeof data === "string" ? parsed(data) : data;
    if (value === undefined) return;
    this.#hasBegun = true;
    leading.headSeq = Math.max(leading.headSeq ?? 0, value.headSeq ?? value.seq ?? 0);
    leading.recent.note(event, id, value);
    this.#post({ kind: "block", event, id, data: value });
    this.#sink.onBlock(event, id, value);
  }

  #welcome(to) {
    const { status, headSeq, recent } = this.#leading;
    this.#post({ kind: "welcome", to, status, headSeq, blocks: recent.blocks() });
  }

  // Following.

  #received(message) {
    if (this.#isStopped) return;
    if (this.#leading !== null) {
      if (message.kind === "ask") this.#welcome(message.from);
      else if (message.kind === "wake") this.#leading.connection.wake();
      else if (message.kind === "reconnect") this.#leading.connection.reconnect();
      return;
    }
    this.#heard(message);
  }

  #heard(message) {
    if (!["block", "status", "welcome"].includes(message.kind)) return;
    this.#heardAt = this.#clock.now();
    if (message.kind === "status") this.#sink.onStatus(message.state);
    else if (message.kind === "block") this.#follow(message);
    else if (message.to === this.#id) {
      if (message.status !== null) this.#sink.onStatus(message.status);
      if (message.headSeq === null) return; // the leader is not connected yet
      this.#begin(message.headSeq);
      for (const [event, id, data] of message.blocks) this.#sink.onBlock(event, id, data);
    }
  }

  #follow({ event, id, data }) {
    if (!this.#hasBegun && event !== "stream.live" && event !== "history.page") return;
    if (!this.#hasBegun) this.#begin(data.headSeq);
    this.#sink.onBlock(event, id, data);
  }

  /** Everything up to the head is in the past: this tab reads what it lacks from the history. */
  #begin(headSeq) {
    this.#hasBegun = true;
    this.#sink.onBlock("stream.live", "", { headSeq });
  }

  #ask() {
    this.#post({ kind: "ask", from: this.#id });
  }

  /** A leader that is frozen keeps its lock: after a long silence it is asked, then replaced. */
  #check() {
    const silent = this.#clock.now() - this.#heardAt;
    let next = CHECK_MS;
    if (this.#leading !== null) this.#heardAt = this.#clock.now();
    else if (silent >= SILENT_MS + REPLY_MS) {
      this.#heardAt = this.#clock.now();
      void this.#queue({ steal: true });
    } else if (silent >= SILENT_MS) {
      this.#ask();
      next = REPLY_MS;
    }
    this.#timer = this.#clock.setTimeout(() => this.#check(), next);
  }

  #post(message) {
    if (!this.#isStopped) this.#channel.postMessage(message);
  }
}
