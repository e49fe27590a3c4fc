// One answer of a project as a stream of chunks: all of it so far, then what follows, then its end.
//
// The project's state is read, not a queue of events: a slow reader gets longer deltas and holds
// nothing up. Which chunks there are is in answer_chunks.js, what asks for answers in ai_sdk.js.

import { ChunkWriter } from "./answer_chunks.js";
import { metadataOf } from "./ui_messages.js";

const LIVE = new Set(["live", "polling"]);

/**
 * A `ReadableStream` of UI message chunks. `find(messages)` returns the answer's item, if it is
 * there; `onAbort()` is called when `signal` ended the stream before the answer had ended. A reader
 * that cancels only goes: the answer is written on.
 */
export function answerStream(project, { find, signal, onAbort, lostAfterMs }) {
  const follower = new Follower(project, { find, signal, onAbort, lostAfterMs });
  return new ReadableStream({
    start: (controller) => follower.start(controller),
    pull: () => follower.advance(),
    cancel: () => follower.stop(),
  });
}

/**
 * Resolve with what `look(state)` returns first that is not undefined; undefined when the time is
 * over, the project is closed, or `signal` says so.
 */
export function until(project, look, { signal, timeoutMs } = {}) {
  return new Promise((resolve) => {
    let timer;
    let unsubscribe = () => {};
    const end = (value) => {
      unsubscribe();
      clearTimeout(timer);
      signal?.removeEventListener("abort", onAbort);
      resolve(value);
    };
    const onAbort = () => end(undefined);
    const check = () => {
      const found = look(project.state);
      if (found !== undefined || project.state.connection.status === "closed") end(found);
    };
    if (signal?.aborted) {
      end(undefined);
      return;
    }
    signal?.addEventListener("abort", onAbort);
    unsubscribe = project.subscribe(check);
    if (timeoutMs !== undefined) timer = setTimeout(() => end(undefined), timeoutMs);
    check();
  });
}

export function abortError(message) {
  return new DOMException(message, "AbortError");
}

class Follower {
  #project;
  #find;
  #signal;
  #onAbort;
  #lostAfterMs;
  #writer = new ChunkWriter();
  #controller = null;
  #unsubscribe = () => {};
  #lostTimer = null;
  #messageId = null; // once it was found: another answer to the question is another one
  #isOver = false;
  #isGiving = false;
  #aborted = () => this.#abort();

  constructor(project, { find, signal, onAbort = () => {}, lostAfterMs }) {
    this.#project = project;
    this.#find = find;
    this.#signal = signal;
    this.#onAbort = onAbort;
    this.#lostAfterMs = lostAfterMs;
  }

  start(controller) {
    this.#controller = controller;
    this.#unsubscribe = this.#project.subscribe(() => this.advance());
    this.#signal?.addEventListener("abort", this.#aborted);
    if (this.#signal?.aborted) this.#abort();
    else this.advance();
  }

  stop() {
    this.#isOver = true;
    this.#unsubscribe();
    this.#signal?.removeEventListener("abort", this.#aborted);
    this.#found();
  }

  /** Give out what is new, if the reader has room for it. */
  advance() {
    // While chunks are given out, a reader that waits asks for more of what is on its way.
    if (this.#isOver || this.#isGiving || this.#controller.desiredSize <= 0) return;
    const { messages, connection } = this.#project.state;
    const item = this.#messageId === null
      ? this.#find(messages)
      : messages.findLast(({ messageId }) => messageId === this.#messageId);
    if (item !== undefined) {
      this.#found();
      this.#show(item);
    }
    if (!this.#isOver) this.#watch(connection, item !== undefined);
  }

  #show(item) {
    const isEnded = item.status === "stored";
    // With a hole in it a text may still change: it is filled soon.
    if (item.incomplete || item.decoding) return;
    this.#begin(item);
    const chunks = item.redacted ? null : this.#writer.advance(item, isEnded);
    if (isEnded) this.#end(item, chunks);
    else this.#give(chunks ?? []);
  }

  #begin(item) {
    if (this.#messageId !== null) return;
    this.#messageId = item.messageId;
    this.#give([{ type: "start", messageId: item.key, messageMetadata: metadataOf(item) }]);
  }

  #end(item, chunks) {
    // The end may replace the text, or the message was deleted: only a reload shows that.
    const replaced = chunks === null ? { replaced: true } : {};
    const messageMetadata = { ...metadataOf(item), ...replaced };
    this.#give([...(chunks ?? this.#writer.end()), { type: "message-metadata", messageMetadata }]);
    const { ending, reason, stoppedBy } = messageMetadata;
    if (ending === "failed") this.#give([{ type: "error", errorText: reason ?? "The answer failed" }]);
    else if (ending === "stopped") {
      this.#give([{ type: "abort", ...(stoppedBy && { reason: `Stopped by ${stoppedBy}` }) }]);
    } else this.#give([{ type: "finish", finishReason: "stop" }]);
    this.#close();
  }

  #abort() {
    if (this.#isOver) return;
    this.#give([...this.#writer.end(), { type: "abort" }]);
    this.#close();
    this.#onAbort();
  }

  #give(chunks) {
    this.#isGiving = true;
    for (const chunk of chunks) this.#controller.enqueue(chunk);
    this.#isGiving = false;
  }

  #close() {
    this.stop();
    this.#controller.close();
  }

  /** An answer that does not come is not waited for: neither of a closed project, nor for ever. */
  #watch({ status, reason }, isThere) {
    if (status === "closed" || status === "refused") {
      const isOwn = status === "closed" && reason === undefined;
      const error = isOwn
        ? abortError("The project was closed")
        : new Error(`The connection has ended: ${reason ?? status}`);
      this.stop();
      this.#controller.error(error);
    } else if (isThere || !LIVE.has(status)) this.#found();
    else this.#lostTimer ??= setTimeout(() => this.#lose(), this.#lostAfterMs);
  }

  #found() {
    clearTimeout(this.#lostTimer);
    this.#lostTimer = null;
  }

  #lose() {
    this.stop();
    this.#controller.error(new Error("The answer was not found"));
  }
}
