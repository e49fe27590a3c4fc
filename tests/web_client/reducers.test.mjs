// Answers, builds and people: what events make of them (docs/protocol.md §6).
import assert from "node:assert/strict";
import test from "node:test";
import { ProjectModel } from "../../service/web/client/model.js";
import { message } from "./fake_service.mjs";

const delta = (index, text, extra = {}) => ({
  userId: "bot", entryId: `1-${index + 1}`, timestamp: "t", content: { messageId: "a1", index, kind: "text", delta: text, ...extra },
});
const state = (index, text, parts = []) => ({
  userId: "bot", timestamp: "t", content: { messageId: "a1", replyTo: "m1", index, text, parts, status: "in_progress" },
});
const status = (name, { attempt = 1, entryId, progress = null, timestamp = "2030-01-01T00:00:00.000000Z" } = {}) => ({
  userId: "ann", entryId, status: name, timestamp,
  content: { buildId: "b1", versionId: "v1", attempt, progress, step: null, message: null },
});

function after(...events) {
  const model = new ProjectModel();
  for (const [event, data] of events) model.apply(event, data, 0);
  return model;
}
const texts = (model) => model.answers.items().map((item) => item.text);

for (const [name, events, expected] of [
  ["pieces in order", [["message.delta", delta(0, "a")], ["message.delta", delta(1, "b")]], ["ab"]],
  ["a repeat is dropped", [["message.delta", delta(0, "a")], ["message.delta", delta(0, "a")], ["message.delta", delta(1, "b")]], ["ab"]],
  ["pieces out of order", [["message.delta", delta(1, "b")], ["message.delta", delta(0, "a")]], ["ab"]],
  ["a state, and pieces after it", [["answer.state", state(4, "so far")], ["message.delta", delta(5, " more")]], ["so far more"]],
  ["pieces that the state has", [["answer.state", state(4, "so far")], ["message.delta", delta(4, "far")]], ["so far"]],
  ["a state that comes after later pieces", [["message.delta", delta(5, " more")], ["answer.state", state(4, "so far")]], ["so far more"]],
  ["a state as new as what is known replaces it", [["message.delta", delta(0, "a")], ["answer.state", state(0, "A")]], ["A"]],
  ["a piece of an older entry, without a kind", [["message.delta", delta(0, "a", { kind: undefined })]], ["a"]],
  ["a state that is older than what is known", [["message.delta", delta(0, "a")], ["message.delta", delta(1, "b")], ["answer.state", state(0, "a")]], ["ab"]],
  ["a state before the first piece", [["answer.state", state(-1, "")], ["message.delta", delta(0, "a")]], ["a"]],
  ["a state without an index", [["answer.state", state(null, "")], ["message.delta", delta(0, "a")]], ["a"]],
  ["a beginning that is told late", [["message.delta", delta(0, "a")], ["answer.state", state(-1, "")], ["message.delta", delta(1, "b")]], ["ab"]],
  ["a beginning alone", [["answer.state", state(-1, "")]], [""]],
]) {
  test(`an answer in progress: ${name}`, () => assert.deepEqual(texts(after(...events)), expected));
}

test("an answer whose beginning is missing says so", () => {
  const model = after(["message.delta", delta(3, "end")]);
  assert.deepEqual(model.answers.items().map((item) => [item.text, item.incomplete]), [["end", true]]);
});

test("the message replaces its answer, and late pieces do not bring it back", () => {
  const model = after(
    ["message.delta", delta(0, "a")],
    ["message.new", message(2, { messageId: "a1", text: "all" })],
    ["message.delta", delta(1, "b")],
    ["answer.state", state(1, "ab")],
  );
  assert.deepEqual(texts(model), []);
  assert.equal(model.list.storedItems(false)[0].key, "a1");
});

for (const [name, events, expected] of [
  ["progress", [status("queued", { attempt: 0, entryId: "1-1" }), status("in_progress", { entryId: "1-2", progress: 40 })], ["in_progress", 1, 40]],
  ["a repeat by entryId", [status("in_progress", { entryId: "1-3", progress: 40 }), status("in_progress", { entryId: "1-2", progress: 20 })], ["in_progress", 1, 40]],
  ["another attempt", [status("in_progress", { entryId: "1-3", progress: 40 }), status("queued", { attempt: 2, entryId: "1-4" })], ["queued", 2, null]],
  ["an earlier attempt", [status("in_progress", { attempt: 2, entryId: "2-1" }), status("in_progress", { attempt: 1, entryId: "1-9" })], ["in_progress", 2, null]],
  ["an end is final", [status("completed", { entryId: "1-3" }), status("in_progress", { entryId: "1-4" })], ["completed", 1, 100]],
  ["the state after a replay, which has no id", [status("in_progress", { entryId: "1-3", progress: 10 }), status("in_progress", { progress: 60, timestamp: "2030-01-01T00:00:01.000000Z" })], ["in_progress", 1, 60]],
  ["its own start, known from a receipt", [status("in_progress", { entryId: "1-2" }), status("queued", { attempt: 0 })], ["in_progress", 1, null]],
]) {
  test(`a build: ${name}`, () => {
    const model = after(...events.map((event) => ["build.status", event]));
    assert.deepEqual(model.builds.list().map((build) => [build.status, build.attempt, build.progress]), [expected]);
  });
}

test("the message of a build's end ends the build", () => {
  const metadata = { build_id: "b1", response_data: { type: "build_failed", attempt: 2 } };
  const model = after(["build.status", status("in_progress", { entryId: "1-2" })], ["message.new", message(3, { metadata })]);
  assert.deepEqual(model.builds.list().map((build) => [build.status, build.attempt]), [["failed", 2]]);
});

test("typing ends by itself after 6 s, and by a word before", () => {
  const { people } = after(["typing.start", { userId: "ann" }], ["typing.start", { userId: "bob" }], ["typing.stop", { userId: "bob" }]);
  assert.deepEqual([people.typingUsers(null), people.typingUsers("ann")], [["ann"], []]);
  assert.deepEqual([people.expire(5999), people.expire(6000), people.typingUsers(null)], [false, true, []]);
});

test("presence that changes while it is being asked for is not lost", () => {
  const { people } = new ProjectModel();
  const changes = people.watchPresence();
  people.presence("bob", true);
  people.presence("ann", false);
  people.setOnline(["ann", "eve"], changes);
  assert.deepEqual(people.onlineUsers(), ["eve", "bob"]);
});

test("a removed member is neither online, typing nor reading", () => {
  const { people } = after(
    ["presence.changed", { userId: "ann", content: { status: "online" } }],
    ["typing.start", { userId: "ann" }],
    ["read.changed", { userId: "ann", content: { seq: 5 } }],
    ["read.changed", { userId: "ann", content: { seq: 3 } }],
  );
  assert.deepEqual(people.reads(), { ann: 5 });
  people.removed("ann");
  assert.deepEqual([people.onlineUsers(), people.typingUsers(null), people.reads()], [[], [], {}]);
});

test("an event of a later edition changes nothing", () => {
  const model = after(["message.new", message(1)]);
  assert.equal(model.apply("poll.opened", { seq: 2, content: {} }, 0), false);
});
