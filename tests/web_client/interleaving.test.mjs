// Whatever the order of receipts, events, replays, repeats and pages: the list ends as the log is.
//
// A small service with a log of messages and changes, and a client's model that hears of it in an
// order that a seed chooses. What the log looks like is worked out again here, from all changes in
// order, so that a mistake of the client's is not repeated.
import assert from "node:assert/strict";
import test from "node:test";
import { ProjectModel } from "../../service/web/client/model.js";
import { pagesFor } from "../../service/web/client/history.js";
import { seeded } from "./fake_clock.mjs";
import { message } from "./fake_service.mjs";

const REPLAYED = 5; // at most so many are replayed, as 200 by the service
const STEPS = 400;
const SEEDS = process.env.SEQSTREAM_LONG_CLIENTS ? 2000 : 60;

class Log {
  entries = []; // {name, data}

  get head() {
    return this.entries.length;
  }

  /** The message `seq` as it was when the head was `asOf`. */
  view(seq, asOf = this.head) {
    const result = structuredClone(this.entries[seq - 1].data);
    for (const { name, data } of this.entries.slice(0, asOf)) {
      if (data.targetSeq !== seq) continue;
      const { userId, content } = data;
      if (name === "message.edited" && !result.redacted) {
        result.content.text = content.text;
        result.editedSeq = data.seq;
      } else if (name === "message.redacted") {
        Object.assign(result, { redacted: true, reactions: undefined });
        result.content.text = "";
      } else if (name.startsWith("reaction.")) {
        const users = new Set(result.reactions?.[content.emoji]);
        if (name === "reaction.added") users.add(userId);
        else users.delete(userId);
        result.reactions = { ...result.reactions, [content.emoji]: [...users] };
      }
    }
    return result;
  }

  page(after, before, limit) {
    const end = Math.min(before - 1, after + limit, this.head);
    const messages = this.entries.slice(after, end).map(({ name, data }) =>
      name === "message.new" ? this.view(data.seq) : structuredClone(data));
    return { messages, after, before: Math.max(end, after) + 1, headSeq: this.head };
  }
}

class World {
  log = new Log();
  model = new ProjectModel({ isMine: (userId) => userId === "me" });
  #random;
  #position = null; // the stream's, null while there is none
  #pages = []; // on their way
  #receipts = [];
  #sent = 0;
  keys = new Map(); // seq of own messages -> client_msg_id

  constructor(seed) {
    this.#random = seeded(seed);
    this.model.list.begin(0);
  }

  below(bound) {
    return Math.floor(this.#random() * bound);
  }

  pick(list) {
    return list.splice(this.below(list.length), 1)[0];
  }

  step() {
    const steps = [
      this.append, this.append, this.send, this.change, this.change, this.hear, this.hear, this.hear,
      this.connect, this.cut, this.repeat, this.ask, this.answer, this.receipt,
    ];
    steps[this.below(steps.length)].call(this);
  }

  append(extra = {}) {
    const seq = this.log.head + 1;
    this.log.entries.push({ name: "message.new", data: message(seq, extra) });
    return seq;
  }

  send() {
    const clientMsgId = `c${++this.#sent}`;
    this.model.list.addPending({ clientMsgId, text: clientMsgId, mode: "chat", timestamp: "t" });
    const seq = this.append({ id: clientMsgId, userId: "me", text: clientMsgId });
    this.keys.set(seq, clientMsgId);
    const stored = message(seq, { id: clientMsgId, userId: "me", text: clientMsgId });
    const receipt = { clientMsgId, seq, messageId: stored.messageId, timestamp: "t" };
    if (this.#random() < 0.7) this.#receipts.push([receipt, stored]); // else it is lost
  }

  change() {
    const targets = this.log.entries.filter((entry) => entry.name === "message.new").slice(-8);
    if (targets.length === 0) return;
    const targetSeq = this.pick(targets).data.seq;
    const seq = this.log.head + 1;
    const name = ["message.edited", "reaction.added", "reaction.removed", "message.redacted"][
      Math.min(this.below(13) >> 2, 3)];
    const content = { "message.edited": { text: `edit ${seq}` }, "message.redacted": {} }[name] ??
      { emoji: ["👍", "🎉"][this.below(2)] };
    const data = { seq, targetSeq, messageId: `x${seq}`, userId: `u${this.below(2)}`, content };
    this.log.entries.push({ name, data });
  }

  /** The next event of the stream. */
  hear() {
    if (this.#position === null || this.#position >= this.log.head) return;
    const { name, data } = this.log.entries[this.#position++];
    this.model.apply(name, structuredClone(data), 0);
  }

  connect() {
    const { cursor } = this.model.list;
    const { head } = this.log;
    this.model.apply("stream.open", { cursor, headSeq: head }, 0);
    const replayed = this.log.entries.slice(cursor, Math.min(head, cursor + REPLAYED));
    for (const { name, data } of replayed) {
      // A replayed message is shown as it is now.
      if (name === "message.new") this.model.apply("message.replay", this.log.view(data.seq), 0);
      else this.model.apply(name, structuredClone(data), 0);
    }
    const last = cursor + replayed.length;
    if (last < head) {
      this.model.apply("replay.end", { lastReplayedSeq: last, liveFromSeq: head + 1 }, 0);
    }
    this.model.apply("stream.live", { headSeq: head }, 0);
    this.#position = head;
  }

  cut() {
    this.#position = null;
  }

  /** Something that the client had before, from a repeated connection. */
  repeat() {
    const { cursor } = this.model.list;
    if (cursor < 1) return;
    const { name, data } = this.log.entries[this.below(cursor)];
    const seen = name === "message.new" ? this.log.view(data.seq) : structuredClone(data);
    this.model.apply(name, seen, 0);
  }

  ask() {
    const ranges = pagesFor(this.model.gaps(), 3, 7);
    if (ranges.length === 0) return;
    const { after, before } = this.pick(ranges);
    this.#pages.push(this.log.page(after, before, 1 + this.below(7)));
  }

  answer() {
    if (this.#pages.length > 0) this.model.page(this.pick(this.#pages));
  }

  receipt() {
    if (this.#receipts.length > 0) this.model.list.receipt(...this.pick(this.#receipts));
  }

  /** Everything that is on its way arrives, and what is missing is fetched. */
  finish() {
    while (this.#pages.length > 0) this.answer();
    while (this.#receipts.length > 0) this.receipt();
    this.connect();
    for (let rounds = 0; this.model.gaps().length > 0; rounds++) {
      assert.ok(rounds < 1000, "the gaps do not get fewer");
      this.ask();
      this.answer();
    }
  }
}

const reduced = ({ seq, text, redacted = false, editedSeq = null, reactions = {} }) => ({
  seq, text, redacted, editedSeq,
  reactions: Object.fromEntries(Object.entries(reactions)
    .filter(([, users]) => users.length > 0)
    .map(([emoji, users]) => [emoji, [...users].sort()])
    .sort()),
});

for (let group = 0; group < 5; group++) {
  test(`the list ends as the log is: seeds ${group}, ${group + 5}, …`, () => {
    for (let seed = group; seed < SEEDS; seed += 5) {
      const world = new World(seed);
      for (let step = 0; step < STEPS; step++) world.step();
      world.finish();
      const { log, model, keys } = world;
      const expected = log.entries
        .filter((entry) => entry.name === "message.new")
        .map(({ data }) => log.view(data.seq))
        .map((view) => reduced({ ...view, text: view.content.text }));
      const items = model.list.storedItems(false);
      // One message at a time: a difference of whole lists fills the screen.
      assert.deepEqual(items.map((item) => item.seq), expected.map((view) => view.seq), `seed ${seed}`);
      items.forEach((item, at) => assert.deepEqual(reduced(item), expected[at], `seed ${seed}`));
      assert.deepEqual(model.list.pendingItems("me"), [], `seed ${seed}`);
      for (const item of items) {
        assert.equal(item.key, keys.get(item.seq) ?? item.messageId, `seed ${seed}`);
      }
    }
  });
}
