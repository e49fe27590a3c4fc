// The stored messages of one project by seq, and what is being sent. Pure: no I/O, no clock.
//
// However receipts, events, replays, pages and repeats arrive: each message is here once, in the
// order of seqs, as its changes left it. Answers in progress are in answers.js; what belongs
// together in a snapshot is put together in model.js.
//
// Known is the range above `floor` up to `cursor`, but for gaps. The cursor follows the stream
// alone: a receipt tells of one message, and of none before it.

import { changed, itemOf, pendingItem } from "./items.js";
import { SeqRanges } from "./seq_ranges.js";

const MAX_CHANGES = 2000; // remembered for pages that were read before them
const MAX_KEYS = 10_000;

export class MessageList {
  floor = null; // everything above this seq is wanted; null until a first seq is known
  cursor = null;
  #records = []; // {data, key, text, asOf, isReceipt, item}, by seq
  #ids = new Set(); // messageIds of #records
  #known = new SeqRanges();
  #pending = new Map(); // clientMsgId -> {message, status, error, item}
  #keys = new Map(); // messageId -> key, of those that had another before they were stored
  #changes = []; // {name, data}, in the order of arrival
  #needed = new Map(); // seq -> the head that it must be read at, at least, since a change came by
  #replies = new Map(); // parentId -> how many messages here name it
  #isMine;
  #limit;
  #max;

  /** `isMine(userId)`: whether a client_msg_id of this user may be one of ours. */
  constructor({ max = 5000, isMine = () => true } = {}) {
    this.#max = this.#limit = max;
    this.#isMine = isMine;
  }

  /** Say from where on messages are wanted, unless that is known. */
  begin(seq) {
    this.floor ??= seq;
    this.cursor = Math.max(this.cursor ?? 0, seq);
  }

  /** Everything up to here is in the past of the stream; what was not seen of it is a gap. */
  advance(seq) {
    this.begin(seq);
    this.#trim();
  }

  /** Forget what is stored, keep what is being sent. */
  reset(cursor) {
    this.#records = [];
    this.#ids.clear();
    this.#needed.clear();
    this.#known.clear();
    this.#changes = [];
    this.#replies.clear();
    this.#limit = this.#max;
    this.floor = null;
    this.cursor = cursor;
  }

  /** A message of the stream. Returns false for a repeat. */
  message(data) {
    if (this.floor === null) this.begin(data.seq - 1);
    this.cursor = Math.max(this.cursor, data.seq);
    if (data.seq <= this.floor || this.#known.has(data.seq)) return false;
    this.#known.add(data.seq);
    this.#put(data);
    this.#trim();
    return true;
  }

  /** A change of the stream. Returns false for a repeat. */
  change(name, data) {
    if (this.floor === null) this.begin(data.seq - 1);
    this.cursor = Math.max(this.cursor, data.seq);
    if (data.seq <= this.floor || this.#known.has(data.seq)) return false;
    this.#known.add(data.seq);
    this.#changes.push({ name, data });
    if (this.#changes.length > MAX_CHANGES) this.#changes.shift();
    const record = this.#find(data.targetSeq);
    if (record !== undefined && record.asOf < data.seq) {
      // With those that came before it and belong after it, once more: the last one counts.
      this.#replace(record, this.#withChanges(changed(record.data, name, data), data.seq));
    }
    this.#trim();
    return true;
  }

  /**
   * A page of the history: everything between two exclusive bounds, each message at least as new as
   * when the head was `headSeq`. Changes on it (`targetSeq`) do not say enough to be applied: what
   * they changed becomes a gap, so that it is read again.
   */
  page(entries, { after, before, headSeq }) {
    for (const entry of entries) {
      if (entry.targetSeq !== undefined && !this.#known.has(entry.seq)) this.#need(entry);
    }
    if (before - 1 > after) this.#known.add(after + 1, before - 1);
    for (const entry of entries) {
      if (entry.targetSeq === undefined) this.#put(this.#withChanges(entry, headSeq), { asOf: headSeq });
    }
    this.#trim();
  }

  /** The newest messages: a start, or a start again after `reset`. */
  newestPage(entries, headSeq) {
    const seqs = entries.map((entry) => entry.seq);
    const after = Math.min(...seqs, headSeq + 1) - 1;
    this.floor = Math.min(this.floor ?? after, after);
    this.cursor = Math.max(this.cursor ?? 0, headSeq);
    this.page(entries, { after, before: headSeq + 1, headSeq });
  }

  /** Older messages, asked for by the user: the list may grow for them, up to twice its maximum. */
  olderPage(entries, { after, headSeq }) {
    const before = this.floor + 1;
    this.#limit = Math.min(2 * this.#max, Math.max(this.#limit, this.cursor - after));
    this.floor = after;
    this.page(entries, { after, before, headSeq });
  }

  /** How many seqs older ones there is room for. */
  get room() {
    return this.floor === null ? 0 : Math.max(2 * this.#max - (this.cursor - this.floor), 0);
  }

  /** Ranges that are wanted and not known, bounds exclusive, oldest first. */
  gaps() {
    return this.floor === null ? [] : this.#known.missing(this.floor, this.cursor + 1);
  }

  addPending(message, status = "sending") {
    this.#pending.set(message.clientMsgId, { message, status, error: undefined, item: null });
  }

  setPending(clientMsgId, status, error) {
    const pending = this.#pending.get(clientMsgId);
    if (pending === undefined) return;
    Object.assign(pending, { status, error, item: null });
  }

  removePending(clientMsgId) {
    return this.#pending.delete(clientMsgId);
  }

  hasPending(clientMsgId) {
    return this.#pending.has(clientMsgId);
  }

  /** A receipt: the message takes its place, with what its sender knows of it until it arrives. */
  receipt(receipt, message) {
    const { text = null } = this.#pending.get(receipt.clientMsgId)?.message ?? {};
    this.removePending(receipt.clientMsgId);
    const isOld = this.floor !== null && receipt.seq <= this.floor;
    if (isOld || this.#find(receipt.seq) !== undefined) return;
    this.#keep(receipt.messageId, receipt.clientMsgId);
    this.#put(message, { isReceipt: true, text });
  }

  /** The text to show for a message whose own text is encoded; ignored if it changed since. */
  decoded(data, text) {
    const record = this.#find(data.seq);
    if (record === undefined || record.data !== data) return;
    record.text = text;
    record.item = null;
  }

  hasMessage(messageId) {
    return this.#ids.has(messageId);
  }

  find(seq) {
    return this.#find(seq)?.data;
  }

  get oldestSeq() {
    return this.#records.length > 0 ? this.#records[0].data.seq : null;
  }

  /** The stored messages as items, by seq. */
  storedItems(isDecoding) {
    return this.#records.map((record) => {
      record.item ??= itemOf(record, this.#repliesTo(record.data), isDecoding);
      return record.item;
    });
  }

  /** What is not stored yet, in the order of sending. */
  pendingItems(userId) {
    return [...this.#pending.values()].map((pending) => {
      pending.item ??= pendingItem(pending, userId);
      return pending.item;
    });
  }

  /** For a store: what `restore` takes. Receipts whose message has not arrived are left out. */
  save() {
    return {
      messages: this.#records.filter((record) => !record.isReceipt).map((record) => record.data),
      floor: this.floor,
      cursor: this.cursor,
      gaps: this.gaps(),
    };
  }

  restore({ messages, floor, cursor, gaps }) {
    if (floor === null || cursor === null) return;
    this.floor = floor;
    this.cursor = cursor;
    let low = floor;
    for (const gap of gaps) {
      this.#known.add(low + 1, gap.after);
      low = gap.before - 1;
    }
    this.#known.add(low + 1, cursor);
    for (const message of messages) this.#put(message);
    this.#trim();
  }

  /** `asOf`: the head when this was so. */
  #put(data, { asOf = data.seq, isReceipt = false, text = null } = {}) {
    const key = this.#reconcile(data);
    if (asOf < this.#needed.get(data.seq)) this.#known.remove(data.seq);
    else this.#needed.delete(data.seq);
    const existing = this.#find(data.seq);
    if (existing !== undefined) {
      if (existing.asOf > asOf) return; // a page that was long on its way
      existing.asOf = asOf;
      existing.isReceipt = existing.isReceipt && isReceipt;
      this.#replace(existing, data);
      return;
    }
    const record = { data, key, text, asOf, isReceipt, item: null };
    const at = this.#place(data.seq);
    if (at === this.#records.length) this.#records.push(record);
    else this.#records.splice(at, 0, record);
    this.#ids.add(data.messageId);
    if (data.parentId) {
      this.#replies.set(data.parentId, (this.#replies.get(data.parentId) ?? 0) + 1);
      const parent = this.#records.find((each) => each.data.messageId === data.parentId);
      if (parent !== undefined) parent.item = null;
    }
  }

  /** The key of a message; ends its pending one, whoever sent the news first. */
  #reconcile(data) {
    const id = data.client_msg_id;
    if (id !== null && this.#pending.has(id) && this.#isMine(data.userId)) {
      this.#pending.delete(id);
      this.#keep(data.messageId, id);
    }
    return this.#keys.get(data.messageId) ?? data.messageId;
  }

  #replace(record, data) {
    if (record.data === data) return;
    // Bytes that did not change keep their decoded text.
    if (record.data.content.text !== data.content.text) record.text = null;
    record.data = data;
    record.item = null;
  }

  /** A change whose effect is not known: its message is wanted as it is from then on. */
  #need({ seq, targetSeq }) {
    const record = this.#find(targetSeq);
    if (record?.asOf >= seq) return;
    this.#needed.set(targetSeq, Math.max(seq, this.#needed.get(targetSeq) ?? 0));
    if (this.#needed.size > this.#max) this.#needed.delete(this.#needed.keys().next().value);
    this.#known.remove(targetSeq);
  }

  /** A message as it was at a head, with the changes that are known here and came after that. */
  #withChanges(data, head) {
    return this.#changes
      .filter((change) => change.data.targetSeq === data.seq && change.data.seq > head)
      .sort((a, b) => a.data.seq - b.data.seq)
      .reduce((result, change) => changed(result, change.name, change.data), data);
  }

  #repliesTo(data) {
    return Math.max(data.replyCount ?? 0, this.#replies.get(data.messageId) ?? 0);
  }

  #place(seq) {
    const records = this.#records;
    let low = 0;
    let high = records.length;
    if (high === 0 || records[high - 1].data.seq < seq) return high;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (records[middle].data.seq < seq) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  #find(seq) {
    const record = this.#records[this.#place(seq)];
    return record?.data.seq === seq ? record : undefined;
  }

  #trim() {
    // Half a tenth at once, so that a full list does not move for every message.
    const slack = Math.ceil(this.#max / 20);
    if (this.floor === null || this.cursor - this.floor <= this.#limit + slack) return;
    this.#limit = this.#max;
    this.floor = this.cursor - this.#limit;
    this.#known.dropUpTo(this.floor);
    const at = this.#place(this.floor + 1);
    for (const { data } of this.#records.splice(0, at)) this.#forget(data);
  }

  #keep(messageId, key) {
    // Kept over a reset, when the messages go and come back.
    this.#keys.set(messageId, key);
    if (this.#keys.size > MAX_KEYS) this.#keys.delete(this.#keys.keys().next().value);
  }

  #forget({ messageId, parentId }) {
    this.#ids.delete(messageId);
    this.#keys.delete(messageId);
    if (!parentId) return;
    const left = this.#replies.get(parentId) - 1;
    if (left > 0) this.#replies.set(parentId, left);
    else this.#replies.delete(parentId);
  }
}
