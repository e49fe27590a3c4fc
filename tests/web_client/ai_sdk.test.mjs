// The transport for the AI SDK, with the real `ai` package.
import assert from "node:assert/strict";
import test from "node:test";
import { ChunkWriter, uiParts } from "../../service/web/client/answer_chunks.js";
import { uiMessages } from "../../service/web/client/ai_sdk.js";
import { withPart } from "../../service/web/client/parts.js";
import { Chat, chunksOf, plain, read, room, settle } from "./ai_chat.mjs";
import { seeded } from "./fake_clock.mjs";

const SEEDS = process.env.SEQSTREAM_LONG_CLIENTS ? 2000 : 100;

const user = (id, text) => ({ id, role: "user", parts: [{ type: "text", text }] });
const sent = (messages, more = {}) => ({ trigger: "submit-message", chatId: "c", messages, ...more });
const again = (messages, more = {}) => ({ ...sent(messages, more), trigger: "regenerate-message" });
const textOf = (message) => message.parts.filter(({ type }) => type === "text").map(({ text }) => text).join("");
const stored = (project) => uiMessages(project.state.messages).map(plain);
const reply = { type: "answer", replyTo: "m1" };

function streamOf(chunks) {
  return new ReadableStream({
    start(controller) {
      for (const chunk of chunks) controller.enqueue(chunk);
      controller.close();
    },
  });
}

const tool = (id, text) => ({ kind: "tool", data: { id, name: "find", text } });
const output = (id, value) => ({ kind: "tool", data: { id, output: value } });

/** The item after each piece. */
function growth(pieces) {
  const items = [];
  let text = "";
  let parts = [];
  for (const { kind = "text", delta, data } of pieces) {
    if (kind === "text") text += delta;
    else parts = withPart(parts, { kind, offset: Array.from(text).length, data });
    items.push({ text, parts });
  }
  return items;
}

for (const [name, pieces, expected] of [
  ["text", [{ delta: "a" }, { delta: "b" }], [{ type: "text", text: "ab", state: "done" }]],
  ["reasoning before text", [{ kind: "reasoning", data: { text: "h" } }, { kind: "reasoning", data: { text: "m" } }, { delta: "🧵" }],
    [{ type: "reasoning", id: "0", text: "hm", state: "done" }, { type: "text", text: "🧵", state: "done" }]],
  ["a part within text", [{ delta: "🧵a" }, { kind: "data", data: 1 }, { delta: "b" }],
    [{ type: "text", text: "🧵a", state: "done" }, { type: "data-part", id: "1", data: 1 }, { type: "text", text: "b", state: "done" }]],
  ["a call and its result", [tool("1", '{"q":'), tool("1", "7}"), output("1", [1])],
    [{ type: "dynamic-tool", toolCallId: "1", toolName: "find", state: "output-available", input: { q: 7 }, output: [1] }]],
  ["two calls whose inputs come in turns", [tool("1", '{"q":'), tool("2", '{"r":'), tool("1", "7}"), tool("2", "8}")],
    [{ type: "dynamic-tool", toolCallId: "1", toolName: "find", state: "input-available", input: { q: 7 } },
      { type: "dynamic-tool", toolCallId: "2", toolName: "find", state: "input-available", input: { r: 8 } }]],
  ["a call without input", [tool("1", ""), { delta: "a" }],
    [{ type: "dynamic-tool", toolCallId: "1", toolName: "find", state: "input-available", input: {} }, { type: "text", text: "a", state: "done" }]],
  ["a call that broke off", [tool("1", '{"q":')],
    [{ type: "dynamic-tool", toolCallId: "1", toolName: "find", state: "output-error", input: '{"q":', errorText: "The input of the call is not complete" }]],
  ["a result of an unknown call", [output("9", "x")],
    [{ type: "dynamic-tool", toolCallId: "9", toolName: "tool", state: "output-available", input: {}, output: "x" }]],
  ["an id that is used again", [tool("1", "{}"), output("1", "x"), tool("1", '{"q":1}'), output("1", "y")],
    [{ type: "dynamic-tool", toolCallId: "1", toolName: "find", state: "output-available", input: {}, output: "x" },
      { type: "dynamic-tool", toolCallId: "1 1", toolName: "find", state: "output-available", input: { q: 1 }, output: "y" }]],
  ["data that is a data part, and changes", [{ kind: "data", data: { type: "data-weather", id: "w", data: "?" } }, { delta: "a" }, { kind: "data", data: { type: "data-weather", id: "w", data: 20 } }],
    [{ type: "data-weather", id: "w", data: 20 }, { type: "text", text: "a", state: "done" }]],
  ["data that grows", [{ kind: "data", data: { of: 1, text: "a" } }, { kind: "data", data: { of: 1, text: "b" } }], [{ type: "data-part", id: "0", data: { of: 1, text: "ab" } }]],
  ["a tool's piece of another form", [{ kind: "tool", data: { name: "find" } }], [{ type: "data-part", id: "0", data: { name: "find" } }]],
]) {
  test(`parts of an answer: ${name}`, async () => {
    const items = growth(pieces);
    const wanted = expected.map((part) => (part.type === "dynamic-tool" ? { ...part, providerExecuted: true } : part));
    assert.deepEqual(plain(uiParts(items.at(-1), true)), wanted);
    const writer = new ChunkWriter();
    const chunks = items.flatMap((item, at) => writer.advance(item, at === items.length - 1));
    const { message } = await read(streamOf([{ type: "start", messageId: "a1" }, ...chunks]));
    assert.deepEqual(message.parts, wanted);
  });
}

test(`whatever was followed, the parts are those of the message (${SEEDS} seeds)`, async () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = seeded(seed);
    const one = (list) => list[Math.floor(random() * list.length)];
    const items = growth(Array.from({ length: 20 }, () => one([
      () => ({ delta: one(["a", "🧵"]) }),
      () => ({ kind: "reasoning", data: { text: "x" } }),
      () => tool(one(["1", "2"]), one(["{", '"a":1', "}"])),
      () => output(one(["1", "2"]), 1),
      () => ({ kind: "data", data: { text: "p" } }),
      () => ({ kind: "data", data: { type: "data-x", id: one(["1", "2"]), data: random() } }),
    ])()));
    const writer = new ChunkWriter();
    const seen = items.filter((_, at) => at === items.length - 1 || random() < 0.6);
    const chunks = seen.flatMap((item) => writer.advance(item, item === items.at(-1)));
    const { message } = await read(streamOf([{ type: "start", messageId: "a1" }, ...chunks]));
    assert.deepEqual(message.parts, plain(uiParts(items.at(-1), true)), `seed ${seed}`);
  }
});

test("what the user sends is answered in pieces, and ends as the project's messages", async (t) => {
  const { project, transport, receipts, posts, piece, message } = await room(t);
  receipts();
  const chat = new Chat({ transport, generateId: () => "ui1" });
  const sending = chat.sendMessage({ text: "hello" });
  await settle();
  const { message: text, client_msg_id: id, mode } = posts("/chat/unified")[0].body;
  assert.deepEqual([text, id, mode], ["hello", "ui1", "plan"]);
  await message(1, "hello", { id: "ui1" });
  await piece(0, { kind: "reasoning", data: { text: "hm" } });
  await piece(1, "Hi ");
  assert.equal(chat.status, "streaming");
  assert.deepEqual([chat.lastMessage.id, textOf(chat.lastMessage)], ["a1", "Hi "]);
  await piece(2, "ann");
  const parts = [{ kind: "reasoning", offset: 0, data: { text: "hm" } }];
  await message(2, "Hi ann", { messageId: "a1", reply: { ...reply, parts } });
  await sending;
  assert.equal(chat.status, "ready");
  assert.deepEqual(plain(chat.messages[1]), stored(project)[1]);
  assert.deepEqual(chat.messages.map(({ id }) => id), stored(project).map(({ id }) => id));
});

test("a slow reader gets longer deltas, and holds nothing up", async (t) => {
  const { transport, receipts, piece, message } = await room(t);
  receipts();
  const sending = transport.sendMessages(sent([user("u1", "hello")]));
  await settle();
  const stream = await sending;
  for (let index = 0; index < 300; index++) await piece(index, "x");
  await message(2, "x".repeat(300), { messageId: "a1", reply });
  const chunks = await chunksOf(stream);
  assert.ok(chunks.length < 10, `${chunks.length}`);
  assert.equal(textOf((await read(streamOf(chunks))).message), "x".repeat(300));
});

test("the same UI message is posted under one id, an edited one under another", async (t) => {
  const { transport, receipts, posts, message } = await room(t);
  receipts();
  const submit = async (text) => {
    const stream = transport.sendMessages(sent([user("u1", text)]));
    await settle();
    await (await stream).cancel();
    await message(2 * posts("/chat/unified").length - 1, text, { id: posts("/chat/unified").at(-1).body.client_msg_id });
  };
  for (const text of ["one", "one", "other", "other"]) await submit(text);
  const ids = posts("/chat/unified").map(({ body }) => body.client_msg_id);
  assert.deepEqual(ids.slice(0, 2), ["u1", "u1"]);
  assert.match(ids[2], /^u1\.[0-9a-f]{8}$/);
  assert.equal(ids[3], ids[2]);
});

test("a message that was shown after a reload is sent again under the id it had", async (t) => {
  const { project, transport, receipts, posts, message } = await room(t);
  receipts();
  await message(1, "one", { id: "ui1" });
  const [shown] = uiMessages(project.state.messages);
  assert.equal(shown.id, "m1");
  const stream = transport.sendMessages(sent([shown]));
  await settle();
  await (await stream).cancel();
  assert.equal(posts("/chat/unified")[0].body.client_msg_id, "ui1");
});

for (const [what, message] of [
  ["a result of the page's own tool", { id: "a0", role: "assistant", parts: [] }],
  ["a file", { id: "u1", role: "user", parts: [{ type: "file", url: "data:,", mediaType: "text/plain" }] }],
]) {
  test(`what cannot be sent is refused: ${what}`, async (t) => {
    const { transport, posts } = await room(t);
    await assert.rejects(transport.sendMessages(sent([message])), /can be sent/);
    assert.equal(posts("/chat/unified").length, 0);
  });
}

test("a refused message is an error of the chat, and is sent again under its id", async (t) => {
  const { service, transport, receipts, posts } = await room(t);
  service.on("POST", "/chat/unified", () => [413, { error: "Too long", code: "PAYLOAD_TOO_LARGE" }]);
  const chat = new Chat({ transport, generateId: () => "ui1" });
  await chat.sendMessage({ text: "hello" });
  assert.deepEqual([chat.status, chat.error.code], ["error", "PAYLOAD_TOO_LARGE"]);
  receipts();
  const sending = chat.regenerate();
  await settle();
  assert.deepEqual(posts("/chat/unified").map(({ body }) => body.client_msg_id), ["ui1", "ui1"]);
  assert.equal(chat.status, "submitted");
  await chat.stop();
  await sending;
});

test("stop ends the stream with what there is, and stops the answer once", async (t) => {
  const { service, transport, receipts, posts, piece } = await room(t);
  receipts();
  service.on("POST", "/answers/a1/stop", () => [200, {}]);
  const chat = new Chat({ transport });
  const sending = chat.sendMessage({ text: "hello" });
  await settle();
  await piece(0, "so far");
  await chat.stop();
  await sending;
  await settle();
  assert.deepEqual([chat.status, textOf(chat.lastMessage)], ["ready", "so far"]);
  assert.equal(posts("/answers/a1/stop").length, 1);
});

test("stop before the receipt stops the answer that begins", async (t) => {
  const { service, transport, posts } = await room(t);
  let answer;
  service.on("POST", "/chat/unified", () => new Promise((resolve) => { answer = resolve; }));
  service.on("POST", "/answers/a1/stop", () => [200, {}]);
  const chat = new Chat({ transport });
  const sending = chat.sendMessage({ text: "hello" });
  await settle();
  await chat.stop();
  await sending;
  assert.equal(chat.status, "ready");
  answer([201, { seq: 1, messageId: "m1", timestamp: "t", assistantMessageId: "a1" }]);
  await settle();
  assert.equal(posts("/answers/a1/stop").length, 1);
});

test("an answer that has ended is not stopped, and that there is none is no error", async (t) => {
  t.mock.method(console, "error");
  const { service, transport, receipts, posts, piece, message } = await room(t);
  receipts();
  service.on("POST", "/answers/a1/stop", () => [409, { error: "ended", code: "ANSWER_ENDED" }]);
  const controller = new AbortController();
  const stream = transport.sendMessages(sent([user("u1", "hello")], { abortSignal: controller.signal }));
  await settle();
  await piece(0, "a");
  controller.abort();
  assert.deepEqual((await chunksOf(await stream)).at(-1), { type: "abort" });
  await settle();
  assert.equal(posts("/answers/a1/stop").length, 1);
  await message(2, "a", { messageId: "a1", reply });
  receipts(); // a repeat: the same question, and its answer
  const other = new AbortController();
  const whole = transport.sendMessages(sent([user("u1", "hello")], { abortSignal: other.signal }));
  await settle();
  await chunksOf(await whole);
  other.abort();
  await settle();
  assert.equal(posts("/stop").length, 1);
  assert.equal(console.error.mock.callCount(), 0);
});

test("a stop that did not get through is sent again, and given up in the end", async (t) => {
  t.mock.method(console, "error", () => {});
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const { service, transport, posts, state } = await room(t);
  service.on("POST", "/answers/a1/stop", () => [503, { error: "away", code: "STORE_UNAVAILABLE" }]);
  await state(0, "a");
  const controller = new AbortController();
  await transport.reconnectToStream({ abortSignal: controller.signal });
  controller.abort();
  for (let second = 0; second < 10; second++) {
    await settle();
    t.mock.timers.tick(1000);
  }
  assert.equal(posts("/answers/a1/stop").length, 3);
  const reported = console.error.mock.calls.map((call) => call.arguments[0]);
  assert.deepEqual(reported.map(({ code }) => code).filter(Boolean), ["STORE_UNAVAILABLE"]);
});

test("a reader that cancels is forgotten, and stops nothing", async (t) => {
  const { project, transport, receipts, posts, piece } = await room(t);
  let listeners = 0;
  const { subscribe } = project;
  project.subscribe = (listener) => {
    const unsubscribe = subscribe.call(project, listener);
    listeners++;
    return () => { listeners--; unsubscribe(); };
  };
  receipts();
  const stream = transport.sendMessages(sent([user("u1", "hello")], { abortSignal: new AbortController().signal }));
  await settle();
  await piece(0, "a");
  const reader = (await stream).getReader();
  await reader.read();
  assert.equal(listeners, 1);
  await reader.cancel();
  await piece(1, "b");
  assert.deepEqual([listeners, posts("/stop").length], [0, 0]);
});

for (const [what, end, ending, expected] of [
  ["stopped by a member", { type: "answer_stopped", stoppedBy: "bob" }, "ready", { ending: "stopped", stoppedBy: "bob" }],
  ["failed", { type: "answer_failed", reason: "the model is away" }, "error", { ending: "failed", reason: "the model is away" }],
]) {
  test(`an answer that was ${what} keeps its text`, async (t) => {
    const { project, transport, receipts, piece, message } = await room(t);
    receipts();
    const chat = new Chat({ transport });
    const sending = chat.sendMessage({ text: "hello" });
    await settle();
    await message(1, "hello", { id: chat.messages[0].id });
    await piece(0, "so ");
    await message(2, "so far", { messageId: "a1", reply: { ...end, replyTo: "m1" } });
    await sending;
    assert.deepEqual([chat.status, chat.error?.message], [ending, end.reason]);
    assert.deepEqual(plain(chat.lastMessage), stored(project)[1]);
    const { metadata } = chat.lastMessage;
    for (const [key, value] of Object.entries(expected)) assert.equal(metadata[key], value);
  });
}

test("a text that was replaced at the end is marked: a stream takes nothing back", async (t) => {
  const { project, transport, receipts, piece, message } = await room(t);
  receipts();
  const stream = transport.sendMessages(sent([user("u1", "hello")]));
  await settle();
  const reading = read(await stream);
  await piece(0, "a draft");
  await message(2, "The answer", { messageId: "a1", reply });
  const { message: shown } = await reading;
  assert.deepEqual([textOf(shown), shown.metadata.replaced], ["a draft", true]);
  assert.equal(textOf(stored(project)[1]), "The answer");
});

test("after a reload the chat goes on in the middle of the answer, from its beginning", async (t) => {
  const { project, transport, connection, message, state, piece } = await room(t, { isLive: false });
  const chat = new Chat({ transport });
  const resuming = chat.resumeStream();
  await message(1, "hello", { id: "ui1" });
  await state(7, "Once upon ", { parts: [{ kind: "reasoning", offset: 0, data: { text: "hm" } }] });
  chat.messages = uiMessages(project.state.messages);
  assert.deepEqual([chat.status, ...chat.messages.map(textOf)], ["ready", "hello", "Once upon "]);
  await connection("live");
  assert.deepEqual([chat.status, ...chat.messages.map(textOf)], ["streaming", "hello", "Once upon "]);
  await piece(8, "a time");
  assert.equal(textOf(chat.lastMessage), "Once upon a time");
  const parts = [{ kind: "reasoning", offset: 0, data: { text: "hm" } }];
  await message(2, "Once upon a time", { messageId: "a1", reply: { ...reply, parts } });
  await resuming;
  assert.equal(chat.status, "ready");
  assert.deepEqual(chat.messages.map(plain), stored(project));
});

test("there is nothing to go on with: no stream", async (t) => {
  const { transport, message } = await room(t);
  await message(1, "hello");
  await message(2, "Hi", { messageId: "a1", reply });
  assert.equal(await transport.reconnectToStream({ chatId: "c" }), null);
});

test("a refused project is an error, a closed one has no stream", async (t) => {
  const { project, transport, connection } = await room(t, { isLive: false });
  const refused = assert.rejects(transport.reconnectToStream(), /UNAUTHENTICATED/);
  await connection("refused", "UNAUTHENTICATED");
  await refused;
  await connection("connecting");
  const waiting = transport.reconnectToStream();
  project.close();
  assert.equal(await waiting, null);
});

test("to reconnect again takes the place of the attempt before, and stops no answer", async (t) => {
  const { service, transport, posts, state, piece } = await room(t);
  service.on("POST", "/answers/a1/stop", () => [200, {}]);
  await state(0, "a");
  const chat = new Chat({ transport });
  const first = chat.resumeStream();
  await settle();
  const second = chat.resumeStream();
  await settle();
  await piece(1, "b");
  assert.deepEqual([chat.status, textOf(chat.lastMessage), posts("/stop").length], ["streaming", "ab", 0]);
  await chat.stop();
  await Promise.all([first, second]);
  await settle();
  assert.equal(posts("/answers/a1/stop").length, 1);
});

test("an answer is written again, and takes the place of the one before", async (t) => {
  const { service, project, transport, message, piece } = await room(t);
  service.on("POST", "/answers/a1/regenerate", () => [201, { messageId: "a2", replyTo: "m1", regenerates: "a1", status: "in_progress" }]);
  await message(1, "hello", { id: "ui1" });
  await message(2, "Hi", { messageId: "a1", reply });
  const chat = new Chat({ transport, messages: uiMessages(project.state.messages) });
  const writing = chat.regenerate();
  await settle();
  await piece(0, "Good day", "a2");
  assert.deepEqual(chat.messages.map(textOf), ["hello", "Good day"]);
  await message(3, "Good day", { messageId: "a2", reply, regenerates: "a1" });
  await writing;
  assert.deepEqual(chat.messages.map(plain), stored(project));
});

test("any answer may be named to be written again", async (t) => {
  const { service, transport, posts, message } = await room(t);
  service.on("POST", "/regenerate", () => [201, { messageId: "a9", replyTo: "m1", status: "in_progress" }]);
  await message(1, "one", { id: "ui1" });
  await message(2, "1", { messageId: "a1", reply });
  await message(3, "two", { id: "ui2" });
  await message(4, "2", { messageId: "a2", reply: { ...reply, replyTo: "m3" } });
  await message(5, "3", { messageId: "a3", reply: { type: "answer" } });
  const named = [[user("m1", "one")], [user("m1", "one"), user("m3", "two")]];
  for (const [messages, messageId] of [[named[0], "a1"], [named[1], undefined], [named[1], "m3"], [named[1], "a3"]]) {
    const stream = transport.sendMessages(again(messages, { messageId }));
    await settle();
    await (await stream).cancel();
  }
  assert.deepEqual(posts("/regenerate").map(({ path }) => path.split("/").at(-2)), ["a1", "a2", "a2", "a3"]);
});

test("an answer that is being written is followed, not begun again", async (t) => {
  const { transport, posts, message, state } = await room(t);
  await message(1, "hello", { id: "ui1" });
  await state(0, "Hi");
  const stream = await transport.sendMessages(again([user("m1", "hello")]));
  await message(2, "Hi", { messageId: "a1", reply });
  assert.equal(textOf((await read(stream)).message), "Hi");
  assert.equal(posts("/regenerate").length, 0);
});

test("without an answer there is nothing to write again", async (t) => {
  const { transport, message } = await room(t);
  await message(1, "hello");
  await assert.rejects(transport.sendMessages(again([user("m1", "hello")])), /no answer/);
});

test("a hole in an answer is waited for, not streamed over", async (t) => {
  const { transport, receipts, piece } = await room(t);
  receipts();
  const stream = transport.sendMessages(sent([user("u1", "hello")]));
  await settle();
  const reader = (await stream).getReader();
  await reader.read();
  const next = reader.read();
  await piece(1, "b");
  await piece(0, "a");
  assert.equal((await next).value.type, "text-start");
  assert.equal((await reader.read()).value.delta, "ab");
  await reader.cancel();
});

test("an answer goes on over a connection that had to begin anew", async (t) => {
  const { service, transport, receipts, piece, state, message, tell } = await room(t);
  service.on("GET", "/chat/messages", () => new Promise(() => {}));
  receipts();
  const stream = transport.sendMessages(sent([user("u1", "hello")]));
  await settle();
  const reading = read(await stream);
  await piece(0, "so ");
  await tell("stream.reset", { projectId: "p", reason: "trimmed", firstSeq: 1, headSeq: 1 }, "1");
  await state(1, "so far");
  await piece(2, " so good");
  await message(2, "so far so good", { messageId: "a1", reply });
  const { message: shown, errors } = await reading;
  assert.deepEqual([textOf(shown), errors], ["so far so good", []]);
});

test("an answer that is not to be found ends with an error, but not while the project is away", async (t) => {
  const { transport, receipts, connection } = await room(t, { lostAfterMs: 20, isLive: false });
  receipts({ assistantMessageId: undefined });
  const stream = transport.sendMessages(sent([user("u1", "hello")]));
  await settle();
  const reading = chunksOf(await stream);
  let isOver = false;
  reading.catch(() => { isOver = true; });
  await new Promise((resolve) => setTimeout(resolve, 40));
  assert.equal(isOver, false);
  await connection("live");
  await assert.rejects(reading, /not found/);
});

test("without its id in the receipt the answer is found by its question", async (t) => {
  const { transport, receipts, state, message } = await room(t);
  receipts({ assistantMessageId: undefined });
  const stream = transport.sendMessages(sent([user("u1", "hello")]));
  await settle();
  const reading = read(await stream);
  await state(-1, "");
  await message(2, "Hi", { messageId: "a1", reply });
  assert.equal(textOf((await reading).message), "Hi");
});

test("a stream ends with its project", async (t) => {
  const { project, transport, receipts, connection } = await room(t);
  receipts();
  const streams = [transport.sendMessages(sent([user("u1", "one")])), transport.sendMessages(sent([user("u2", "two")]))];
  await settle();
  const reading = chunksOf(await streams[0]);
  const refused = assert.rejects(reading, /access_revoked/);
  await connection("closed", "access_revoked");
  await refused;
  await connection("live");
  const other = assert.rejects(chunksOf(await streams[1]));
  project.close();
  await other;
});

test("answers in progress are shown as far as they are written", async (t) => {
  const { project, piece } = await room(t);
  const shown = () => uiMessages(project.state.messages).map(({ parts }) => parts.map(({ type, state, text }) => [type, state, text]));
  await piece(0, { kind: "reasoning", data: { text: "hm" } });
  await piece(1, "Hi");
  const parts = [["reasoning", "done", "hm"], ["text", "streaming", "Hi"]];
  assert.deepEqual(shown(), [parts]);
  await piece(2, tool("1", '{"q":'));
  assert.deepEqual(shown(), [[parts[0], ["text", "done", "Hi"]]]);
  await piece(4, "after a hole");
  assert.deepEqual(shown(), []);
});

test("an answer that is being written again hides the one before", async (t) => {
  const { project, message, piece } = await room(t);
  await message(1, "Hi", { messageId: "a1", reply });
  await piece(0, "Good", "a2");
  assert.deepEqual(uiMessages(project.state.messages).map(textOf), ["Hi", "Good"]);
  await message(2, "Good day", { messageId: "a2", reply, regenerates: "a1" });
  assert.deepEqual(uiMessages(project.state.messages).map(textOf), ["Good day"]);
});

test("messages of others are shown, and one that did not change is the same", async (t) => {
  const { project, message } = await room(t);
  await message(1, "hello", { userId: "bob" });
  const before = uiMessages(project.state.messages);
  assert.deepEqual(before.map(({ id, role, metadata }) => [id, role, metadata.userId]), [["m1", "user", "bob"]]);
  await message(2, "Hi", { messageId: "a1", reply });
  assert.equal(uiMessages(project.state.messages)[0], before[0]);
});
