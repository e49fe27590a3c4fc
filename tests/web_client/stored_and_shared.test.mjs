// The pure parts of `persist` and `shareTabs`: which part of a snapshot is kept, what a late tab gets.

import assert from "node:assert/strict";
import test from "node:test";

import { Recent } from "../../service/web/client/recent.js";
import { newest } from "../../service/web/client/storage.js";

const messages = (first, last) =>
  Array.from({ length: last - first + 1 }, (_, at) => ({ seq: first + at }));

test("the newest messages are kept, with a floor below the first of them", () => {
  const snapshot = { messages: messages(1, 10), floor: 0, cursor: 10, gaps: [], pending: [] };
  const kept = newest(snapshot, 3);
  assert.deepEqual(kept.messages, messages(8, 10));
  assert.deepEqual([kept.floor, kept.cursor], [7, 10]);
  assert.equal(newest(snapshot, 10), snapshot);
});

test("gaps below the floor go, and one that crosses it is cut", () => {
  // 1, 2, then a gap 3..6, then 7, then a gap 8..9, then 10.
  const snapshot = {
    messages: [{ seq: 1 }, { seq: 2 }, { seq: 7 }, { seq: 10 }], floor: 0, cursor: 10,
    gaps: [{ after: 2, before: 7 }, { after: 7, before: 10 }],
  };
  assert.deepEqual(newest(snapshot, 2).gaps, [{ after: 7, before: 10 }]);
  assert.deepEqual(newest(snapshot, 2).floor, 6);
  assert.deepEqual(newest(snapshot, 3).gaps, snapshot.gaps);
});

const build = (buildId, status) => ["build.status", "", { status, content: { buildId } }];
const piece = (messageId, index) =>
  ["message.delta", "", { userId: "bot", timestamp: "t", content: { messageId, index, kind: "text", delta: `${index};` } }];
const state = (messageId, index, text) => {
  const content = { messageId, replyTo: null, index, text, parts: [], status: "in_progress" };
  return ["answer.state", "", { userId: "bot", timestamp: "t", content }];
};
const ended = (messageId) => ["message.new", "7", { seq: 7, messageId }];

function recentAfter(blocks) {
  const recent = new Recent();
  for (const block of blocks) recent.note(...block);
  return recent.blocks();
}

test("a late tab gets the last status of each unfinished build", () => {
  const blocks = [build("a", "queued"), build("b", "queued"), build("a", "in_progress")];
  assert.deepEqual(recentAfter(blocks), [build("b", "queued"), build("a", "in_progress")]);
  assert.deepEqual(recentAfter([...blocks, build("a", "failed")]), [build("b", "queued")]);
});

test("a late tab gets an answer so far until its message has come", () => {
  const blocks = [piece("m", 0), piece("m", 1)];
  assert.deepEqual(recentAfter(blocks), [state("m", 1, "0;1;")]);
  assert.deepEqual(recentAfter([...blocks, ended("m")]), []);
  const page = ["history.page", "", { messages: [{ seq: 7, messageId: "m" }] }];
  assert.deepEqual(recentAfter([...blocks, page]), []);
  assert.deepEqual(recentAfter([ended("m"), state("m", 0, "late"), piece("m", 1)]), []);
});

test("a late tab gets pieces after a hole as they came", () => {
  assert.deepEqual(recentAfter([piece("m", 0), piece("m", 4)]), [state("m", 0, "0;"), piece("m", 4)]);
});

test("an answer's state that comes late takes nothing away from a late tab", () => {
  const blocks = [piece("m", 0), state("m", -1, ""), piece("m", 1)];
  assert.deepEqual(recentAfter(blocks), [state("m", 1, "0;1;")]);
});

test("what is kept is bounded, and ends with a reset", () => {
  const holed = Array.from({ length: 6000 }, (_, index) => piece("m", index + 1));
  assert.ok(recentAfter(holed).length < 5500);
  const answers = Array.from({ length: 30 }, (_, number) => piece(`m${number}`, 0));
  assert.equal(recentAfter(answers).length, 16);
  const builds = Array.from({ length: 150 }, (_, number) => build(`b${number}`, "queued"));
  assert.equal(recentAfter(builds).length, 100);
  assert.deepEqual(recentAfter([...builds, ["stream.reset", "9", { headSeq: 9 }]]), []);
});
