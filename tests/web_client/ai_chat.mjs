// The AI SDK's own chat without a framework, and a project whose stream a test feeds.

import { AbstractChat, readUIMessageStream } from "ai";

import { chatTransport } from "../../service/web/client/ai_sdk.js";
import { open } from "../../service/web/client/seqstream.js";
import { FakeClock, settle } from "./fake_clock.mjs";
import { FakeService } from "./fake_service.mjs";

/** What `useChat` is around: real requests to the transport, real processing of its chunks. */
export class Chat extends AbstractChat {
  constructor({ messages = [], onChange = () => {}, ...init }) {
    let status = "ready";
    const state = {
      error: undefined,
      get status() { return status; },
      set status(value) { status = value; onChange(); },
      get messages() { return messages; },
      set messages(value) { messages = value; onChange(); },
      pushMessage: (message) => { state.messages = [...messages, message]; },
      popMessage: () => { state.messages = messages.slice(0, -1); },
      replaceMessage: (at, message) => { state.messages = messages.with(at, structuredClone(message)); },
      snapshot: structuredClone,
    };
    super({ ...init, state });
  }
}

/** Everything that a stream of chunks makes of a message. */
export async function read(stream) {
  let last;
  const errors = [];
  for await (const message of readUIMessageStream({ stream, onError: (error) => errors.push(error.message) })) last = message;
  return { message: plain(last), errors };
}

export async function chunksOf(stream) {
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  return chunks;
}

/** Without the members that are there and undefined. */
export const plain = (value) => JSON.parse(JSON.stringify(value));

const QUESTION = { type: "user", mode: "plan", actor_type: "client" };
const ANSWER = { type: "assistant", mode: "plan", actor_type: "assistant" };

/** A project of ann's, live unless it is said otherwise, with a transport over it. */
export async function room(context, { isLive = true, ...options } = {}) {
  const clock = new FakeClock();
  const service = new FakeService();
  let sink;
  const project = open({
    project: "p", url: "http://s", userId: "ann", after: 0, clock, fetch: service.fetch,
    source: (to) => {
      sink = to;
      return { start() {}, stop() {}, wake() {}, reconnect() {} };
    },
  });
  context.after(() => project.close());
  const tell = async (event, data, id = "") => {
    sink.onBlock(event, id, data);
    await settle();
  };
  const made = {
    project, service, clock, tell,
    transport: chatTransport(project, options),
    connection: async (status, reason) => {
      sink.onStatus({ status, reason, transport: "stream" });
      await settle();
    },
    piece: (index, piece, messageId = "a1") => tell("message.delta", {
      userId: "ann", entryId: `1-${index + 1}`, timestamp: "t",
      content: { messageId, index, ...(typeof piece === "string" ? { kind: "text", delta: piece } : piece) },
    }),
    state: (index, text, { parts = [], messageId = "a1", replyTo = "m1" } = {}) => tell("answer.state", {
      userId: "ann", timestamp: "t", content: { messageId, replyTo, index, text, parts, status: "in_progress" },
    }),
    message: (seq, text, { messageId = `m${seq}`, reply, id = null, userId = "ann", regenerates } = {}) => tell("message.new", {
      seq, messageId, client_msg_id: id, projectId: "p", userId, timestamp: "2030-01-01T00:00:00.000000Z",
      content: { text, ...(reply ? ANSWER : QUESTION) },
      metadata: { build_id: null, response_data: reply ?? null, ...(regenerates && { regenerates }) },
    }, `${seq}`),
    /** Receipts of mode `plan`: question `m1` with answer `a1`, `m2` with `a2` … */
    receipts: (more = {}) => {
      let count = 0;
      service.on("POST", "/chat/unified", ({ body }) => {
        const number = ++count;
        const ids = { seq: 2 * number - 1, messageId: `m${number}`, assistantMessageId: `a${number}` };
        return [201, { ...ids, client_msg_id: body.client_msg_id, timestamp: "t", duplicate: false, ...more }];
      });
    },
    posts: (end) => service.to(end, "POST"),
  };
  await clock.advance();
  if (isLive) await made.connection("live");
  return made;
}

export { settle };
