// The parts of an answer: the same while it is written and in its message (docs/protocol.md §5).
import assert from "node:assert/strict";
import test from "node:test";
import { Answers } from "../../service/web/client/answers.js";
import { ProjectModel } from "../../service/web/client/model.js";
import { seeded } from "./fake_clock.mjs";
import { message } from "./fake_service.mjs";

const SEEDS = process.env.SEQSTREAM_LONG_CLIENTS ? 3000 : 150;

const text = (delta) => ({ kind: "text", delta });
const part = (kind, data) => ({ kind, data });
const delta = (piece, index) => ({
  userId: "bot", timestamp: "t", content: { messageId: "a1", index, ...piece },
});
const state = (index, { text: whole, parts }) => ({
  userId: "bot", timestamp: "t",
  content: { messageId: "a1", replyTo: "m1", index, text: whole, parts, status: "in_progress" },
});

function written(pieces) {
  const answers = new Answers();
  pieces.forEach((piece, index) => answers.delta(delta(piece, index)));
  return answers.items()[0];
}

for (const [name, pieces, parts] of [
  ["reasoning that follows reasoning is one", [part("reasoning", { text: "a" }), part("reasoning", { text: "b" })],
    [{ kind: "reasoning", offset: 0, data: { text: "ab" } }]],
  ["text between them parts them", [part("reasoning", { text: "a" }), text("x"), part("reasoning", { text: "b" })],
    [{ kind: "reasoning", offset: 0, data: { text: "a" } }, { kind: "reasoning", offset: 1, data: { text: "b" } }]],
  ["empty text parts nothing", [part("reasoning", { text: "a" }), text(""), part("reasoning", { text: "b" })],
    [{ kind: "reasoning", offset: 0, data: { text: "ab" } }]],
  ["another kind parts them", [part("reasoning", { text: "a" }), part("data", { text: "b" }), part("reasoning", { text: "c" })],
    [["reasoning", "a"], ["data", "b"], ["reasoning", "c"]].map(([kind, of]) => ({ kind, offset: 0, data: { text: of } }))],
  ["the input of one call is one, in any order of its members",
    [part("tool", { id: "1", name: "find", text: '{"q":' }), part("tool", { text: "1}", name: "find", id: "1" })],
    [{ kind: "tool", offset: 0, data: { id: "1", name: "find", text: '{"q":1}' } }]],
  ["two calls are two", [part("tool", { id: "1", name: "find", text: "a" }), part("tool", { id: "2", name: "find", text: "b" })],
    ["a", "b"].map((of, at) => ({ kind: "tool", offset: 0, data: { id: `${at + 1}`, name: "find", text: of } }))],
  ["a result is no part of its call", [part("tool", { id: "1", text: "a" }), part("tool", { id: "1", output: 7 })],
    [{ kind: "tool", offset: 0, data: { id: "1", text: "a" } }, { kind: "tool", offset: 0, data: { id: "1", output: 7 } }]],
  ["members that differ deep inside part them", [part("data", { x: [{ y: 1 }], text: "a" }), part("data", { x: [{ y: 2 }], text: "b" })],
    [{ kind: "data", offset: 0, data: { x: [{ y: 1 }], text: "a" } }, { kind: "data", offset: 0, data: { x: [{ y: 2 }], text: "b" } }]],
  ["data that is no object stands alone", [part("data", "a"), part("data", null), part("data", ["b"]), part("data", { text: 1 })],
    ["a", null, ["b"], { text: 1 }].map((data) => ({ kind: "data", offset: 0, data }))],
  ["an offset counts code points", [text("a🧵\u0301"), part("data", 1)], [{ kind: "data", offset: 3, data: 1 }]],
  ["a kind of a later edition is left out", [text("a"), part("video", { url: "x" }), part("data", 1)], [{ kind: "data", offset: 1, data: 1 }]],
]) {
  test(`parts: ${name}`, () => assert.deepEqual(written(pieces).parts, parts));
}

/** Worked out in another way: whole runs, and not piece by piece. */
function expected(pieces) {
  const runs = [];
  for (const piece of pieces) {
    if (piece.delta === "") continue;
    const key = piece.kind === "text" ? "text" : JSON.stringify([piece.kind, { ...piece.data, text: undefined }]);
    const canJoin = piece.kind === "text" || typeof piece.data.text === "string";
    if (canJoin && runs.at(-1)?.key === key) runs.at(-1).pieces.push(piece);
    else runs.push({ key: canJoin ? key : null, pieces: [piece] });
  }
  let whole = "";
  const parts = [];
  for (const { pieces: [first, ...rest] } of runs) {
    const all = [first, ...rest];
    if (first.kind === "text") whole += all.map((each) => each.delta).join("");
    else {
      const joined = typeof first.data.text === "string" && { text: all.map((each) => each.data.text).join("") };
      parts.push({ kind: first.kind, offset: Array.from(whole).length, data: { ...first.data, ...joined } });
    }
  }
  return { text: whole, parts };
}

function randomPieces(random) {
  const one = (list) => list[Math.floor(random() * list.length)];
  return Array.from({ length: 1 + Math.floor(random() * 25) }, () => one([
    () => text(one(["a", "é", "🧵", ""])),
    () => part("reasoning", { text: one(["x", "y"]) }),
    () => part("tool", { id: one(["1", "2"]), name: "find", text: one(["{", "}"]) }),
    () => part("tool", { id: one(["1", "2"]), output: random() }),
    () => part("data", { of: one([1, 2]), text: one(["p", "q"]) }),
  ])());
}

test(`however pieces and states arrive, text and parts are those of the message (${SEEDS} seeds)`, () => {
  for (let seed = 1; seed <= SEEDS; seed++) {
    const random = seeded(seed);
    const pieces = randomPieces(random);
    const model = new ProjectModel();
    const waiting = pieces.map((piece, index) => ["message.delta", delta(piece, index)]);
    for (let count = Math.floor(random() * 4); count > 0; count--) {
      const upTo = Math.floor(random() * (pieces.length + 1));
      waiting.push(["answer.state", state(upTo - 1, expected(pieces.slice(0, upTo)))]);
    }
    while (waiting.length > 0) {
      const at = Math.floor(random() * Math.min(waiting.length, 4));
      const event = random() < 0.1 ? waiting[at] : waiting.splice(at, 1)[0];
      model.apply(...event, 0);
    }
    const whole = expected(pieces);
    const [item] = model.answers.items();
    assert.deepEqual({ text: item.text, parts: item.parts ?? [] }, whole, `seed ${seed}`);
    assert.equal(item.incomplete, undefined);

    const response_data = { type: "answer", replyTo: "m1", ...(whole.parts.length > 0 && { parts: whole.parts }) };
    model.apply("message.new", message(2, { messageId: "a1", text: whole.text, metadata: { build_id: null, response_data } }), 0);
    const [stored] = model.list.storedItems(false);
    assert.deepEqual([stored.text, stored.parts], [item.text, item.parts], `seed ${seed}`);
  }
});

test("parts that are none are not shown", () => {
  const parts = [null, 1, { kind: "data" }, { kind: "data", offset: -1 }, { kind: "video", offset: 0 }, { kind: "data", offset: 0, data: 1, more: 2 }];
  const model = new ProjectModel();
  model.apply("message.new", message(1, { metadata: { build_id: null, response_data: { type: "answer", parts } } }), 0);
  assert.deepEqual(model.list.storedItems(false)[0].parts, [{ kind: "data", offset: 0, data: 1 }]);
  model.apply("answer.state", state(0, { text: "", parts: "none" }), 0);
  assert.equal(model.answers.items()[0].parts, undefined);
});

test("every reader knows which answer is written again, another tab too", () => {
  const answers = new Answers();
  const { userId, timestamp, content } = state(-1, { text: "", parts: [] });
  answers.state({ userId, timestamp, content: { ...content, regenerates: "a0" } });
  answers.delta(delta(text("x"), 0));
  assert.equal(answers.items()[0].regenerates, "a0");
  const tab = new Answers();
  for (const { data } of answers.events()) tab.state(data);
  assert.equal(tab.items()[0].regenerates, "a0");
});

test("an item that was handed out does not change", () => {
  const answers = new Answers();
  answers.delta(delta(part("reasoning", { text: "a" }), 0));
  const [before] = answers.items();
  answers.delta(delta(part("reasoning", { text: "b" }), 1));
  assert.deepEqual(before.parts, [{ kind: "reasoning", offset: 0, data: { text: "a" } }]);
  assert.deepEqual(answers.items()[0].parts[0].data, { text: "ab" });
});

test("pieces after a hole are held within a bound of bytes", () => {
  const answers = new Answers();
  for (let index = 1; index <= 100; index++) answers.delta(delta(text("x".repeat(32_768)), index));
  const [item] = answers.items();
  assert.ok(item.incomplete && item.text.length <= 512 * 1024, `${item.text.length}`);
});

test("a message says which answer it was written in place of", () => {
  const model = new ProjectModel();
  const metadata = { build_id: null, response_data: { type: "answer", replyTo: "m1" }, regenerates: "a0" };
  model.apply("message.new", message(3, { messageId: "a1", metadata }), 0);
  const [item] = model.list.storedItems(false);
  assert.deepEqual([item.regenerates, item.replyTo], ["a0", "m1"]);
});
