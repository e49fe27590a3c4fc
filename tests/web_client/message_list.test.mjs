// The one ordered list: receipts, events, pages, changes, in whatever order they come.
import assert from "node:assert/strict";
import test from "node:test";
import { MessageList } from "../../service/web/client/message_list.js";
import { pagesFor } from "../../service/web/client/history.js";
import { SeqRanges } from "../../service/web/client/seq_ranges.js";
import { message } from "./fake_service.mjs";

const shown = (list) => list.storedItems(false).map((item) => `${item.seq} ${item.text}`);
const pending = (id, text = "mine") => ({ clientMsgId: id, text, mode: "chat", timestamp: "t" });
const receipt = (id, seq) => ({ clientMsgId: id, seq, messageId: `m${seq}`, timestamp: "t" });
const edit = (seq, targetSeq, text) => ({ seq, targetSeq, userId: "ann", content: { text } });
const reaction = (seq, targetSeq, userId = "bob") => ({ seq, targetSeq, userId, content: { emoji: "👍" } });

function listed(seqs, options) {
  const list = new MessageList(options);
  list.begin(0);
  for (const seq of seqs) list.message(message(seq));
  return list;
}

test("a repeat is dropped, and the first one stays", () => {
  const list = listed([1, 2]);
  assert.equal(list.message(message(2, { text: "again" })), false);
  assert.deepEqual(shown(list), ["1 text 1", "2 text 2"]);
});

test("a seq that was jumped over is a gap until a page brings it", () => {
  const list = listed([1, 2, 6]);
  assert.deepEqual(list.gaps(), [{ after: 2, before: 6 }]);
  list.page([message(3), message(4), message(5)], { after: 2, before: 6, headSeq: 6 });
  assert.deepEqual(list.gaps(), []);
  assert.deepEqual(shown(list), [1, 2, 3, 4, 5, 6].map((seq) => `${seq} text ${seq}`));
});

test("an unchanged item is the same object in the next snapshot", () => {
  const list = listed([1]);
  const [first] = list.storedItems(false);
  list.message(message(2));
  assert.equal(list.storedItems(false)[0], first);
});

for (const [name, steps] of [
  ["the receipt comes first", ["receipt", "event"]],
  ["the event comes first", ["event", "receipt"]],
  ["the receipt is lost", ["event"]],
  ["everything comes twice", ["receipt", "event", "receipt", "event"]],
]) {
  test(`an optimistic message becomes the stored one, under its key: ${name}`, () => {
    const list = listed([1]);
    list.addPending(pending("c1"));
    for (const step of steps) {
      if (step === "event") list.message(message(2, { id: "c1", text: "mine" }));
      else list.receipt(receipt("c1", 2), message(2, { id: "c1", text: "mine" }));
      assert.deepEqual(shown(list), ["1 text 1", "2 mine"]);
      assert.equal(list.storedItems(false)[1].key, "c1");
      assert.deepEqual(list.pendingItems("ann"), []);
    }
  });
}

test("a receipt tells of one message and of none before it", () => {
  const list = listed([1]);
  list.addPending(pending("c1"));
  list.receipt(receipt("c1", 5), message(5, { id: "c1" }));
  assert.equal(list.cursor, 1);
  for (const seq of [2, 3, 4, 5]) assert.equal(list.message(message(seq)), true, `seq ${seq}`);
  assert.deepEqual(shown(list).length, 5);
});

test("a client_msg_id of another user is not ours", () => {
  const list = listed([], { isMine: (userId) => userId === "ann" });
  list.addPending(pending("c1"));
  list.message(message(1, { id: "c1", userId: "bob" }));
  assert.equal(list.pendingItems("ann").length, 1);
  assert.equal(list.storedItems(false)[0].key, "m1");
});

test("changes are applied to what they name", () => {
  const list = listed([1, 2]);
  list.change("message.edited", edit(3, 1, "better"));
  list.change("reaction.added", reaction(4, 1));
  list.change("reaction.added", reaction(5, 1, "eve"));
  list.change("reaction.removed", reaction(6, 1));
  list.change("message.redacted", { seq: 7, targetSeq: 2, userId: "ann", content: {} });
  const [first, second] = list.storedItems(false);
  assert.deepEqual([first.text, first.editedSeq, first.reactions], ["better", 3, { "👍": ["eve"] }]);
  assert.deepEqual([second.text, second.redacted], ["", true]);
  assert.deepEqual(list.gaps(), []);
});

test("changes that come out of order end as the last one says", () => {
  const list = listed([1]);
  const change = (name, data) => list.change(name, data);
  change("reaction.removed", reaction(5, 1));
  change("reaction.added", reaction(4, 1));
  change("message.edited", edit(7, 1, "last"));
  change("message.edited", edit(6, 1, "before"));
  const [item] = list.storedItems(false);
  assert.deepEqual([item.text, item.editedSeq, item.reactions], ["last", 7, {}]);
});

test("a reaction may have any name", () => {
  const list = listed([1]);
  list.change("reaction.added", { ...reaction(2, 1), content: { emoji: "constructor" } });
  assert.deepEqual(list.storedItems(false)[0].reactions, { constructor: ["bob"] });
});

test("an edit that was known to the message already does not bring back an older text", () => {
  const list = new MessageList();
  list.message({ ...message(1, { text: "newest" }), editedSeq: 4 });
  list.change("message.edited", edit(3, 1, "older"));
  assert.equal(list.storedItems(false)[0].text, "newest");
});

test("a page from before a change does not undo it", () => {
  const list = listed([1, 5]);
  list.change("message.edited", edit(6, 3, "edited"));
  list.page([2, 3, 4].map((seq) => message(seq)), { after: 1, before: 5, headSeq: 5 });
  assert.equal(list.storedItems(false)[2].text, "edited");
});

test("a page that was long on its way does not replace a newer one", () => {
  const list = listed([1]);
  list.page([message(1, { text: "new" })], { after: 0, before: 2, headSeq: 9 });
  list.page([message(1, { text: "old" })], { after: 0, before: 2, headSeq: 8 });
  assert.deepEqual(shown(list), ["1 new"]);
});

test("a change found in a gap has its message read again", () => {
  const list = listed([1, 2, 6]);
  list.page([message(3), { seq: 4, targetSeq: 1, content: {} }, message(5)], { after: 2, before: 6, headSeq: 6 });
  assert.deepEqual(list.gaps(), [{ after: 0, before: 2 }]);
  list.page([message(1, { text: "edited" })], { after: 0, before: 2, headSeq: 6 });
  assert.deepEqual(list.gaps(), []);
  assert.equal(shown(list)[0], "1 edited");
});

test("a change found before its message: an older page of that is not the last word", () => {
  const list = listed([1, 9]);
  list.page([{ seq: 6, targetSeq: 3, content: {} }], { after: 5, before: 7, headSeq: 9 });
  list.page([2, 3, 4, 5].map((seq) => message(seq)), { after: 1, before: 6, headSeq: 5 });
  assert.deepEqual(list.gaps(), [{ after: 2, before: 4 }, { after: 6, before: 9 }]);
  list.page([message(3, { text: "edited" })], { after: 2, before: 4, headSeq: 9 });
  assert.deepEqual(list.gaps(), [{ after: 6, before: 9 }]);
});

test("memory is bounded: the oldest are dropped, and can be loaded", () => {
  const list = listed([], { max: 100 });
  for (let seq = 1; seq <= 1000; seq++) list.message(message(seq));
  const { length } = list.storedItems(false);
  assert.ok(length >= 100 && length <= 105, `${length} messages`);
  assert.ok(list.floor >= 895);
  assert.deepEqual(list.gaps(), []);
});

test("a range that is too long to be kept is not asked for", () => {
  const list = listed([1], { max: 100 });
  list.advance(1_000_000);
  assert.deepEqual(list.gaps(), [{ after: 999_900, before: 1_000_001 }]);
  assert.deepEqual(shown(list), []);
});

test("older pages let the list grow to twice its maximum", () => {
  const list = new MessageList({ max: 100 });
  const all = Array.from({ length: 1000 }, (_, at) => message(at + 1));
  list.newestPage(all.slice(900), 1000);
  for (let room = list.room; room > 0; room = list.room) {
    const after = list.floor - Math.min(room, 30);
    list.olderPage(all.slice(after, list.floor), { after, headSeq: 1000 });
  }
  assert.equal(list.storedItems(false).length, 200);
});

test("replies are counted, and what the service counted is not lost", () => {
  const list = listed([]);
  list.message(message(1, { replyCount: 2 }));
  for (const seq of [2, 3, 4]) list.message(message(seq, { parentId: "m1" }));
  assert.equal(list.storedItems(false)[0].replyCount, 3);
});

test("a decoded text is shown, unless the message changed meanwhile", () => {
  const list = listed([1]);
  const first = list.find(1);
  assert.deepEqual([list.storedItems(true)[0].text, list.storedItems(true)[0].decoding], ["", true]);
  list.decoded(first, "clear");
  assert.equal(list.storedItems(true)[0].text, "clear");
  list.change("message.edited", edit(2, 1, "sealed again"));
  list.decoded(first, "clear");
  assert.equal(list.storedItems(true)[0].decoding, true);
});

test("a saved list is the same after it was restored, gaps and all", () => {
  const list = listed([1, 2, 6, 7]);
  list.addPending(pending("c1"));
  list.receipt(receipt("c1", 9), message(9, { id: "c1" }));
  const copy = new MessageList();
  copy.restore(structuredClone(list.save()));
  assert.deepEqual(shown(copy), shown(list).slice(0, 4));
  assert.deepEqual([copy.floor, copy.cursor, copy.gaps()], [0, 7, [{ after: 2, before: 6 }]]);
});

for (const [name, gaps, expected] of [
  ["a short gap is one page", [[5, 10]], [[5, 10]]],
  ["a long gap is read from its end", [[0, 501]], [[300, 501], [100, 301], [0, 101]]],
  ["gaps that lie close share a page", [[3, 5], [8, 10]], [[3, 10]]],
  ["gaps that lie apart do not", [[3, 5], [800, 802]], [[800, 802], [3, 5]]],
  ["at most as many as asked for", [[0, 10_001]], [[9800, 10_001], [9600, 9801], [9400, 9601]]],
  ["nothing for nothing", [], []],
]) {
  test(`pages for gaps: ${name}`, () => {
    const pages = pagesFor(gaps.map(([after, before]) => ({ after, before })), 3);
    assert.deepEqual(pages.map(({ after, before }) => [after, before]), expected);
  });
}

test("ranges know what is missing", () => {
  const ranges = new SeqRanges();
  for (const [first, last] of [[5, 6], [1, 2], [8, 8], [7, 7], [20, 30]]) ranges.add(first, last);
  ranges.remove(25);
  assert.deepEqual(ranges.missing(0, 32), [
    { after: 2, before: 5 }, { after: 8, before: 20 }, { after: 24, before: 26 }, { after: 30, before: 32 },
  ]);
  ranges.dropUpTo(22);
  assert.deepEqual(ranges.missing(20, 31), [{ after: 20, before: 23 }, { after: 24, before: 26 }]);
  assert.deepEqual([ranges.has(23), ranges.has(25), ranges.has(2)], [true, false, false]);
});
