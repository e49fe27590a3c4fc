// What the user sends: in order, repeated until there is an answer, each message once in the log.
//
// Every attempt has the same client_msg_id and the same body, so that the service can tell a repeat
// (docs/protocol.md §2, G5). The list is told what became of a message; nothing is shown here.

import { backoffMs } from "./backoff.js";
import { pause } from "./clock.js";
import { SeqstreamError } from "./errors.js";

const MAX_PENDING = 1000;
// A message that has arrived by the stream needs its receipt no more: it may take this long.
const RECEIPT_PATIENCE_MS = 2000;

export class Outbox {
  #api;
  #clock;
  #project;
  #encode;
  #timeoutMs;
  #on;
  #entries = new Map(); // clientMsgId -> entry, failed ones too
  #queue = [];
  #isPumping = false;
  #isClosed = false;

  /**
   * `encode(text)` is what is posted for a text, or null. `on.sending(message)`, `on.sent(receipt,
   * stored)`, `on.failed(message, error)` and `on.encoded()` tell what became of messages; `stored`
   * has the form of an event's data.
   */
  constructor({ api, clock, project, encode = null, timeoutMs = 120_000 }, on) {
    this.#api = api;
    this.#clock = clock;
    this.#project = project;
    this.#encode = encode;
    this.#timeoutMs = timeoutMs;
    this.#on = on;
  }

  /** Send a message (`PendingMessage` of seqstream.d.ts); resolves with its receipt. */
  send(message) {
    const known = this.#entries.get(message.clientMsgId);
    if (known !== undefined) return known.isFailed ? this.retry(message.clientMsgId) : known.promise;
    if (this.#isClosed) return refused("CLOSED", "The project was closed");
    if (this.#entries.size >= MAX_PENDING) return refused("OUTBOX_FULL", "Too much waits to be sent");
    const entry = { message, body: null, arrived: null, isDone: false };
    this.#entries.set(message.clientMsgId, entry);
    return this.#enqueue(entry);
  }

  /** Send a failed message again. */
  retry(clientMsgId) {
    const entry = this.#entries.get(clientMsgId);
    if (entry === undefined) return refused("NOT_FOUND", "No such message waits to be sent");
    return entry.isFailed ? this.#enqueue(entry) : entry.promise;
  }

  discard(clientMsgId) {
    this.#end(clientMsgId, new SeqstreamError("The message was discarded", { code: "DISCARDED" }));
  }

  /** The message is in the log: it arrived by the stream or the history. */
  arrived(stored) {
    const entry = this.#entries.get(stored.client_msg_id);
    if (entry === undefined || entry.arrived !== null) return;
    entry.arrived = {
      clientMsgId: stored.client_msg_id,
      seq: stored.seq,
      messageId: stored.messageId,
      timestamp: stored.timestamp,
      duplicate: false,
    };
    if (entry.controller === null) this.#settle(entry, entry.arrived);
    else {
      // Only the receipt names the answer or the build that begins with it.
      entry.patience = this.#clock.setTimeout(() => entry.controller?.abort(), RECEIPT_PATIENCE_MS);
    }
  }

  /** The network may be back: what waits is sent now, unless the service said how long to wait. */
  wake() {
    const first = this.#queue[0];
    if (first?.wait && !first.isTold) first.wait.end();
  }

  /** What a store keeps: everything unsent, in order. */
  pending() {
    return [...this.#entries.values()].map((entry) => entry.message);
  }

  close() {
    this.#isClosed = true;
    for (const id of [...this.#entries.keys()]) {
      this.#end(id, new SeqstreamError("The project was closed", { code: "CLOSED" }));
    }
  }

  #enqueue(entry) {
    entry.isFailed = false;
    entry.controller = entry.wait = entry.patience = null;
    entry.deadline = this.#clock.now() + this.#timeoutMs;
    entry.promise = new Promise((resolve, reject) => Object.assign(entry, { resolve, reject }));
    // The list shows a failure: a caller who ignores the promise must not end a Node process.
    entry.promise.catch(() => {});
    this.#queue.push(entry);
    this.#on.sending(entry.message);
    void this.#pump();
    return entry.promise;
  }

  /** One at a time: what was typed first gets the lower seq. */
  async #pump() {
    if (this.#isPumping) return;
    this.#isPumping = true;
    while (this.#queue.length > 0) {
      await this.#deliver(this.#queue[0]);
      this.#queue.shift();
    }
    this.#isPumping = false;
  }

  async #deliver(entry) {
    for (let attempt = 0; !isOver(entry); attempt++) {
      try {
        const receipt = await this.#post(entry);
        if (!isOver(entry)) this.#settle(entry, receipt);
        return;
      } catch (error) {
        if (isOver(entry)) return;
        if (entry.arrived !== null) this.#settle(entry, entry.arrived);
        else await this.#afterFailure(entry, attempt, error);
      }
    }
  }

  async #afterFailure(entry, attempt, error) {
    const { random } = this.#clock;
    const delay = backoffMs(attempt, { random, toldMs: error.retryAfterMs });
    if (!error.isPassing || this.#clock.now() + delay > entry.deadline) {
      entry.isFailed = true;
      entry.reject(error);
      this.#on.failed(entry.message, error);
      return;
    }
    entry.isTold = error.retryAfterMs > 0;
    entry.wait = pause(this.#clock, delay);
    await entry.wait.promise;
    entry.wait = null;
  }

  async #post(entry) {
    entry.body ??= await this.#body(entry.message);
    if (isOver(entry)) return null;
    entry.controller = new AbortController();
    try {
      const { signal } = entry.controller;
      return receiptOf(await this.#request(entry, signal), entry.message.clientMsgId);
    } finally {
      entry.controller = null;
    }
  }

  #request({ message, body }, signal) {
    if (message.mode === "chat") return this.#api.request("POST", "/chat/messages", { body, signal });
    // `stream`: answered when the message is committed; the answer comes in pieces.
    const { mode } = message;
    const unified = { ...body, projectId: this.#project, mode, ...(mode === "plan" && { stream: true }) };
    return this.#api.call("POST", "/v1/chat/unified", { body: unified, signal });
  }

  async #body(message) {
    if (this.#encode !== null && message.encoded === undefined) {
      try {
        message.encoded = await this.#encode(message.text);
      } catch (cause) {
        throw new SeqstreamError("The text could not be encoded", { status: 400, code: "ENCODING", cause });
      }
      this.#on.encoded();
    }
    const { clientMsgId, parentId, encoded } = message;
    const metadata = encoded?.metadata === undefined
      ? message.metadata
      : { ...message.metadata, ...encoded.metadata };
    return { message: encoded?.message ?? message.text, client_msg_id: clientMsgId, parentId, metadata };
  }

  #settle(entry, receipt) {
    this.#forget(entry);
    this.#on.sent(receipt, storedOf(entry, receipt, this.#project));
    entry.resolve(receipt);
  }

  #end(clientMsgId, error) {
    const entry = this.#entries.get(clientMsgId);
    if (entry === undefined) return;
    this.#forget(entry);
    entry.reject(error);
    entry.controller?.abort();
  }

  #forget(entry) {
    entry.isDone = true;
    this.#entries.delete(entry.message.clientMsgId);
    if (entry.patience !== null) this.#clock.clearTimeout(entry.patience);
    entry.wait?.end();
  }
}

function isOver(entry) {
  return entry.isDone || entry.isFailed;
}

function refused(code, message) {
  const promise = Promise.reject(new SeqstreamError(message, { code, status: 400 }));
  promise.catch(() => {});
  return promise;
}

function receiptOf(said, clientMsgId) {
  const { seq, messageId, timestamp, duplicate, assistantMessageId, buildId } = said;
  return {
    clientMsgId, seq, messageId, timestamp, duplicate: duplicate === true,
    ...(assistantMessageId && { assistantMessageId }),
    ...(buildId && { buildId }),
  };
}

/** The message as the service will send it, as far as its sender knows. */
function storedOf({ message, body }, { seq, messageId, timestamp }, projectId) {
  return {
    seq, messageId, projectId, timestamp,
    client_msg_id: message.clientMsgId,
    userId: null,
    content: { text: body?.message ?? message.text, type: "user", mode: message.mode, actor_type: "client" },
    ...(message.parentId && { parentId: message.parentId }),
    metadata: { build_id: null, response_data: null, ...body?.metadata },
  };
}
