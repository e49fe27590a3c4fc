// Optimistic messages: shown at once, posted in order, repeated until there is an answer.
import assert from "node:assert/strict";
import test from "node:test";
import { SeqstreamError, open } from "../../service/web/client/seqstream.js";
import { FakeClock } from "./fake_clock.mjs";
import { FakeService, json, message } from "./fake_service.mjs";

function opened(context, options = {}) {
  const service = new FakeService();
  const clock = new FakeClock();
  const project = open({
    project: "p", url: "http://s", fetch: service.fetch, clock, after: 0, userId: "ann", ...options,
  });
  context.after(() => project.close());
  return { service, clock, project };
}
let seq = 0;
const receipt = ({ body }) => [201, {
  seq: ++seq, messageId: `m${seq}`, client_msg_id: body.client_msg_id, timestamp: "t", duplicate: false,
}];
const posts = (service) => service.to("/chat/messages", "POST");
const shown = (project) => project.state.messages.map((item) => `${item.seq} ${item.status} ${item.text}`);
test.beforeEach(() => {
  seq = 0;
});

test("a message is shown at once, and takes its place at the receipt", async (t) => {
  const { service, clock, project } = opened(t);
  service.on("POST", "/chat/messages", receipt);
  const sending = project.send("hello", { parentId: "m0", metadata: { a: 1 } });
  assert.deepEqual(shown(project), ["null sending hello"]);
  const { key } = project.state.messages[0];
  await clock.advance();
  assert.deepEqual(shown(project), ["1 stored hello"]);
  assert.equal(project.state.messages[0].key, key);
  assert.deepEqual((await sending).seq, 1);
  assert.deepEqual(posts(service)[0].body, {
    message: "hello", client_msg_id: key, parentId: "m0", metadata: { a: 1 },
  });
});

for (const [what, answer] of [
  ["the network fails", () => { throw new TypeError("failed"); }],
  ["a 503", () => [503, {}]],
  ["a 429", () => [429, {}]],
]) {
  test(`sent again, under the same id, when ${what}`, async (t) => {
    const { service, clock, project } = opened(t);
    let fails = 3;
    service.on("POST", "/chat/messages", (request) => (fails-- > 0 ? answer() : receipt(request)));
    const sending = project.send("hello");
    await clock.advance(10_000);
    await sending;
    assert.equal(posts(service).length, 4);
    assert.equal(new Set(posts(service).map(({ body }) => JSON.stringify(body))).size, 1);
  });
}

test("Retry-After is waited for", async (t) => {
  const { service, clock, project } = opened(t);
  let fails = 1;
  service.on("POST", "/chat/messages", (request) =>
    fails-- > 0 ? json(429, { code: "RATE_LIMITED" }, { "Retry-After": "9" }) : receipt(request));
  project.send("hello");
  await clock.advance(9000);
  assert.equal(posts(service).length, 1);
  await clock.advance(600);
  assert.equal(posts(service).length, 2);
});

for (const code of [400, 403, 404, 409, 413, 422]) {
  test(`a ${code} is final: the message failed, the next one is sent`, async (t) => {
    const { service, clock, project } = opened(t);
    service.on("POST", "/chat/messages", (request) =>
      request.body.message === "bad" ? [code, { error: "no", code: "WHY" }] : receipt(request));
    const bad = project.send("bad");
    const good = project.send("good");
    await clock.advance(60_000);
    await assert.rejects(bad, (error) =>
      error instanceof SeqstreamError && error.status === code && error.code === "WHY");
    await good;
    assert.deepEqual(shown(project), ["1 stored good", "null failed bad"]);
    assert.deepEqual(project.state.messages[1].error, { code: "WHY", message: "no" });
    assert.equal(posts(service).length, 2);
  });
}

test("a promise that nobody looks at ends nothing", async (t) => {
  const { service, clock, project } = opened(t);
  service.on("POST", "/chat/messages", () => [400, {}]);
  project.send("bad");
  await clock.advance();
  assert.deepEqual(shown(project), ["null failed bad"]);
});

test("messages are sent one after another, in the order of the calls", async (t) => {
  const { service, clock, project } = opened(t);
  let fails = 1;
  service.on("POST", "/chat/messages", (request) => (fails-- > 0 ? [503, {}] : receipt(request)));
  const all = Promise.all(["a", "b", "c"].map((text) => project.send(text)));
  await clock.advance(5000);
  await all;
  assert.deepEqual(posts(service).map(({ body }) => body.message), ["a", "a", "b", "c"]);
  assert.deepEqual(shown(project), ["1 stored a", "2 stored b", "3 stored c"]);
});

test("a receipt that was lost is made up for by the message's arrival", async (t) => {
  const { service, clock, project } = opened(t);
  service.on("POST", "/chat/messages", () => {
    throw new TypeError("cut after the commit");
  });
  const sending = project.send("hello");
  await clock.advance();
  const id = project.state.messages[0].key;
  service.stream.open().message(message(1, { id, text: "hello" }));
  await clock.advance();
  assert.deepEqual(await sending, {
    clientMsgId: id, seq: 1, messageId: "m1", timestamp: "2030-01-01T00:00:00.000000Z", duplicate: false,
  });
  assert.deepEqual(shown(project), ["1 stored hello"]);
  const { length } = posts(service);
  await clock.advance(60_000);
  assert.equal(posts(service).length, length);
});

test("an answer that never comes does not hold what is in the log", async (t) => {
  const { service, clock, project } = opened(t);
  service.on("POST", "/chat/messages", (request) =>
    request.body.message === "a" ? new Promise(() => {}) : receipt(request));
  const first = project.send("a", { clientMsgId: "c1" });
  const second = project.send("b");
  await clock.advance();
  service.stream.open().message(message(1, { id: "c1", text: "a" }));
  seq = 1;
  await clock.advance(2000);
  assert.deepEqual([(await first).seq, (await second).seq], [1, 2]);
});

test("a message that could not be sent in time failed, and can be sent again under its id", async (t) => {
  const { service, clock, project } = opened(t, { sendTimeoutMs: 20_000 });
  service.on("POST", "/chat/messages", () => [503, { code: "STORE_UNAVAILABLE" }]);
  const first = project.send("hello");
  await clock.advance(25_000);
  await assert.rejects(first, { code: "STORE_UNAVAILABLE" });
  assert.deepEqual(shown(project), ["null failed hello"]);
  service.on("POST", "/chat/messages", receipt);
  const again = project.retry(project.state.messages[0].key);
  assert.deepEqual(shown(project), ["null sending hello"]);
  await clock.advance();
  assert.equal((await again).seq, 1);
  assert.equal(new Set(posts(service).map(({ body }) => body.client_msg_id)).size, 1);
});

test("the same client_msg_id twice is one message", async (t) => {
  const { service, clock, project } = opened(t);
  service.on("POST", "/chat/messages", receipt);
  const [first, second] = [1, 2].map(() => project.send("hello", { clientMsgId: "c1" }));
  await clock.advance();
  assert.deepEqual(await first, await second);
  assert.equal(posts(service).length, 1);
});

test("a discarded message is gone, and not sent again", async (t) => {
  const { service, clock, project } = opened(t);
  service.on("POST", "/chat/messages", () => [503, {}]);
  const sending = project.send("hello", { clientMsgId: "c1" });
  await clock.advance();
  project.discard("c1");
  await assert.rejects(sending, { code: "DISCARDED" });
  const { length } = posts(service);
  await clock.advance(60_000);
  assert.deepEqual([shown(project), posts(service).length], [[], length]);
});

test("the outbox is bounded", async (t) => {
  const { service, clock, project } = opened(t);
  service.on("POST", "/chat/messages", () => new Promise(() => {}));
  await clock.advance();
  for (let count = 0; count < 1000; count++) project.send("x");
  await assert.rejects(project.send("too much"), { code: "OUTBOX_FULL" });
  assert.equal(project.state.messages.length, 1000);
});

test("mode plan goes to the assistant, whose answer is shown before its first piece", async (t) => {
  const { service, clock, project } = opened(t);
  service.on("POST", "/chat/unified", ({ body }) => [201, {
    seq: 1, messageId: "m1", client_msg_id: body.client_msg_id, timestamp: "t", assistantMessageId: "a1",
  }]);
  const sending = project.send("plan it", { mode: "plan" });
  await clock.advance();
  assert.equal((await sending).assistantMessageId, "a1");
  const [request] = service.to("/chat/unified", "POST");
  assert.deepEqual([request.body.projectId, request.body.mode, request.body.stream], ["p", "plan", true]);
  assert.deepEqual(shown(project), ["1 stored plan it", "null writing "]);
  assert.deepEqual([project.state.messages[1].key, project.state.messages[1].replyTo], ["a1", "m1"]);
});

test("an answer written again is shown before its first piece, and its id is told", async (t) => {
  const { service, clock, project } = opened(t);
  service.on("POST", "/answers/a1/regenerate", () => [201, {
    messageId: "a2", replyTo: "m1", regenerates: "a1", status: "in_progress",
  }]);
  const [messageId] = await Promise.all([project.regenerateAnswer("a1"), clock.advance()]);
  assert.equal(messageId, "a2");
  const [item] = project.state.messages;
  assert.deepEqual([item.messageId, item.status, item.replyTo, item.regenerates], ["a2", "writing", "m1", "a1"]);
  assert.match(service.to("/regenerate", "POST")[0].body.client_msg_id, /^\w+$/);
});

test("an answer that may not be written again begins nothing", async (t) => {
  const { service, clock, project } = opened(t);
  service.on("POST", "/answers/a1/regenerate", () => [409, { error: "It is being written", code: "ANSWER_IN_PROGRESS" }]);
  const refused = assert.rejects(project.regenerateAnswer("a1"), { status: 409, code: "ANSWER_IN_PROGRESS" });
  await clock.advance();
  await refused;
  assert.deepEqual(project.state.messages, []);
});

test("mode build queues a build, which is known at once", async (t) => {
  const { service, clock, project } = opened(t);
  service.on("POST", "/chat/unified", ({ body }) => [201, {
    seq: 1, messageId: "m1", client_msg_id: body.client_msg_id, timestamp: "t", buildId: "b1",
  }]);
  assert.equal((await Promise.all([project.send("build", { mode: "build" }), clock.advance()]))[0].buildId, "b1");
  assert.equal(service.to("/chat/unified", "POST")[0].body.mode, "build");
  assert.deepEqual(project.state.builds.map((build) => [build.buildId, build.status]), [["b1", "queued"]]);
});

test("an encoded text is posted, every time the same, and shown clear", async (t) => {
  let encoded = 0;
  const encryption = {
    encode: async (text) => ({ message: `sealed ${++encoded} ${text}`, metadata: { key: "k1" } }),
    decode: async ({ content }) => content.text.replace(/^sealed \d+ /, ""),
  };
  const { service, clock, project } = opened(t, { encryption });
  let fails = 2;
  service.on("POST", "/chat/messages", (request) => (fails-- > 0 ? [503, {}] : receipt(request)));
  project.send("hello", { clientMsgId: "c1", metadata: { a: 1 } });
  assert.deepEqual(shown(project), ["null sending hello"]);
  await clock.advance(5000);
  assert.deepEqual(shown(project), ["1 stored hello"]);
  assert.deepEqual(posts(service).map(({ body }) => body.message), Array(3).fill("sealed 1 hello"));
  assert.deepEqual(posts(service)[0].body.metadata, { a: 1, key: "k1" });
  service.stream.open().message(message(1, { id: "c1", text: "sealed 1 hello" }));
  service.stream.message(message(2, { text: "sealed 9 other", userId: "bob" }));
  await clock.advance();
  assert.deepEqual(shown(project), ["1 stored hello", "2 stored other"]);
});

test("a text that was encoded before a reload is posted as it was", async (t) => {
  const pending = [{ clientMsgId: "c1", text: "hello", mode: "chat", timestamp: "t", encoded: { message: "sealed" } }];
  const saved = { project: "p", messages: [], floor: null, cursor: null, gaps: [], pending };
  const store = { load: async () => saved, save: async () => {} };
  const encryption = { encode: async () => ({ message: "sealed anew" }), decode: async () => "hello" };
  const { service, clock } = opened(t, { store, encryption });
  service.on("POST", "/chat/messages", receipt);
  await clock.advance();
  assert.deepEqual(posts(service).map(({ body }) => body.message), ["sealed"]);
});

test("a text that cannot be encoded is not sent in clear", async (t) => {
  const encryption = { encode: () => Promise.reject(new Error("no key")), decode: async () => "" };
  const { service, clock, project } = opened(t, { encryption });
  const sending = project.send("secret");
  await clock.advance(60_000);
  await assert.rejects(sending, { code: "ENCODING" });
  assert.equal(posts(service).length, 0);
});

test("a store is asked first, told of changes, and unsent messages are sent after a reload", async (t) => {
  const saves = [];
  const store = { load: async () => saves.at(-1) ?? null, save: async (snapshot) => void saves.push(structuredClone(snapshot)) };
  const { service, clock, project } = opened(t, { store });
  service.on("POST", "/chat/messages", () => [503, {}]);
  await clock.advance();
  service.stream.open().message(message(1)).message(message(2));
  project.send("unsent", { clientMsgId: "c1" }).catch(() => {});
  await clock.advance(1500);
  assert.ok(saves.length >= 1 && saves.length <= 3);
  project.close();
  const second = opened(t, { store, after: undefined });
  second.service.on("POST", "/chat/messages", (request) => {
    seq = 2;
    return receipt(request);
  });
  await second.clock.advance();
  assert.equal(second.service.stream.request.query.last_event_id, "2");
  assert.deepEqual(shown(second.project), ["1 stored text 1", "2 stored text 2", "3 stored unsent"]);
  assert.equal(posts(second.service)[0].body.client_msg_id, "c1");
});

test("a store that fails is done without", async (t) => {
  const broken = () => Promise.reject(new Error("quota"));
  const { service, clock, project } = opened(t, { store: { load: broken, save: broken } });
  await clock.advance();
  service.stream.open().message(message(1));
  await clock.advance(5000);
  assert.deepEqual(shown(project), ["1 stored text 1"]);
});

test("typing is told at most every 3 s, and its end once", async (t) => {
  const { service, clock, project } = opened(t);
  service.on("POST", "/chat/typing", () => [202, { success: true }]);
  const told = () => service.to("/chat/typing", "POST").map(({ body }) => body.typing);
  project.setTyping(false);
  for (let key = 0; key < 8; key++) {
    project.setTyping(true);
    await clock.advance(500);
  }
  project.setTyping(false);
  project.setTyping(false);
  await clock.advance();
  assert.deepEqual(told(), [true, true, false]);
  project.setTyping(true);
  await clock.advance(4000);
  project.setTyping(false);
  await clock.advance();
  assert.deepEqual(told(), [true, true, false, true, false]);
});

test("a 401 renews the token once, and sends again", async (t) => {
  let given = 0;
  const { service, clock, project } = opened(t, { credentials: { token: () => `t${++given}` } });
  service.on("POST", "/chat/messages", (request) =>
    request.headers.Authorization === "Bearer t2" ? receipt(request) : [401, { code: "UNAUTHENTICATED" }]);
  const sending = project.send("hello");
  await clock.advance();
  assert.equal((await sending).seq, 1);
  assert.equal(given, 2);
});
