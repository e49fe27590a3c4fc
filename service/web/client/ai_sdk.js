// A transport for `useChat` of Vercel's AI SDK: a chat is a project that was opened with `open`.
//
// Needs no package: it speaks the `ChatTransport` interface and the UI message stream protocol of
// `ai` 6 (types in ai_sdk.d.ts). It sends and finds answers; what an answer's stream says is in
// answer_stream.js, what a stored message looks like in ui_messages.js.

import { abortError, answerStream, until } from "./answer_stream.js";
import { report } from "./platform.js";
import { uiMessages } from "./ui_messages.js";

export { uiMessages };

const LOST_AFTER_MS = 60_000;
const STOP_ATTEMPTS = 3;
const STOP_AGAIN_MS = 1000;
// They say that there is nothing to stop any more.
const ENDED = new Set([404, 409]);

/**
 * A transport over a project. `lostAfterMs`: how long an answer that was begun may stay unknown while
 * the project is live, before its stream ends with an error.
 */
export function chatTransport(project, { lostAfterMs = LOST_AFTER_MS } = {}) {
  return new SeqstreamTransport(project, lostAfterMs);
}

class SeqstreamTransport {
  /** A stream that was reconnected to begins with all of the answer so far. */
  resumeStreamIsReplay = true;
  #project;
  #lostAfterMs;
  #reconnects = 0;

  constructor(project, lostAfterMs) {
    this.#project = project;
    this.#lostAfterMs = lostAfterMs;
  }

  /** Post the last message, or have an answer written again; resolves with the answer's stream. */
  async sendMessages({ trigger, messages, messageId, abortSignal: signal }) {
    if (signal?.aborted) throw abortError("The message was not sent");
    const beginning = trigger === "regenerate-message"
      ? this.#regenerate(messages, messageId)
      : this.#submit(messages.at(-1));
    const find = await this.#unlessAborted(beginning, signal);
    return this.#stream(find, signal, () => this.#stop(find));
  }

  /** The newest unfinished answer from its beginning; null if there is none. */
  async reconnectToStream({ abortSignal: signal } = {}) {
    const attempt = ++this.#reconnects;
    const isLive = ({ connection: { status } }) =>
      status === "live" || status === "polling" || status === "refused" || undefined;
    // A later attempt takes the place of this one.
    await until(this.#project, (state) => attempt !== this.#reconnects || isLive(state), { signal });
    if (signal?.aborted || attempt !== this.#reconnects) return null;
    const { connection, messages } = this.#project.state;
    if (connection.status === "refused") throw new Error(`The connection was refused: ${connection.reason}`);
    const answer = messages.findLast(({ status, type }) => status === "writing" && type === "assistant");
    if (answer === undefined || connection.status === "closed") return null;
    const find = byId(answer.messageId);
    // `useChat` aborts a stream also to follow the answer anew: that stops nothing.
    return this.#stream(find, signal, () => queueMicrotask(() => {
      if (attempt === this.#reconnects) void this.#stop(find);
    }));
  }

  async #submit(message) {
    const text = textOf(message);
    const clientMsgId = this.#idFor(message.id, text);
    const receipt = await this.#project.send(text, { clientMsgId, mode: "plan" });
    return receipt.assistantMessageId ? byId(receipt.assistantMessageId) : byQuestion(receipt.messageId);
  }

  /**
   * The UI message's own id, so that a message that is sent again is posted once; of one that was
   * edited since, another id that only depends on the text.
   */
  #idFor(id, text) {
    const known = asked(this.#project.state.messages, id);
    if (known === undefined) return id;
    return known.decoding || known.text === text ? (known.clientMsgId ?? id) : `${id}.${hashOf(text)}`;
  }

  async #regenerate(messages, messageId) {
    const items = this.#project.state.messages;
    const question = messages.findLast(({ role }) => role === "user");
    const known = asked(items, question?.id);
    const answer = items.findLast((item) => item.type === "assistant" && item.messageId === messageId) ??
      items.findLast((item) => known?.messageId && item.replyTo === known.messageId);
    // Not sent, or its sending failed.
    if (answer === undefined && question !== undefined && known?.status !== "stored") return this.#submit(question);
    if (answer === undefined) throw new Error("There is no answer to be written again");
    if (answer.status === "writing") return byId(answer.messageId);
    return byId(await this.#project.regenerateAnswer(answer.messageId));
  }

  #stream(find, signal, onAbort) {
    return answerStream(this.#project, { find, signal, onAbort, lostAfterMs: this.#lostAfterMs });
  }

  /** What was sent stays sent; its answer is stopped as soon as it is known. */
  #unlessAborted(beginning, signal) {
    return new Promise((resolve, reject) => {
      const onAbort = () => {
        beginning.then((find) => this.#stop(find), () => {});
        reject(abortError("The answer was stopped"));
      };
      signal?.addEventListener("abort", onAbort, { once: true });
      beginning.then(resolve, reject).finally(() => signal?.removeEventListener("abort", onAbort));
    });
  }

  async #stop(find) {
    const timeoutMs = this.#lostAfterMs;
    const answer = await until(this.#project, ({ messages }) => find(messages), { timeoutMs });
    if (answer?.status !== "writing") return;
    for (let attempt = 1; ; attempt++) {
      try {
        await this.#project.stopAnswer(answer.messageId);
        return;
      } catch (error) {
        if (ENDED.has(error.status)) return;
        if (attempt === STOP_ATTEMPTS || !error.isPassing) {
          report(() => { throw error; });
          return;
        }
        await new Promise((resolve) => setTimeout(resolve, STOP_AGAIN_MS * attempt));
      }
    }
  }
}

function byId(messageId) {
  return (messages) => messages.findLast((item) => item.messageId === messageId);
}

function byQuestion(messageId) {
  return (messages) => messages.findLast((item) => item.type === "assistant" && item.replyTo === messageId);
}

/** The user's message with the id of a UI message, which after a reload is another one. */
function asked(items, id) {
  const own = items.filter(({ type }) => type === "user");
  return own.find(({ key }) => key === id) ?? own.find(({ clientMsgId }) => clientMsgId === id);
}

function textOf(message) {
  if (message?.role !== "user") throw new Error("Only a message of the user can be sent");
  if (message.parts.some(({ type }) => type === "file")) throw new Error("Only text can be sent");
  return message.parts.filter(({ type }) => type === "text").map(({ text }) => text).join("\n");
}

/** FNV-1a: short, and the same in every tab. */
function hashOf(text) {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x01000193) >>> 0;
  return hash.toString(16).padStart(8, "0");
}
