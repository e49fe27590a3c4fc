// Answers while they are written: their pieces in order, each once. Pure: no I/O, no clock.
//
// Pieces come at least once, and after a reconnect perhaps not from the first one; `answer.state`
// has all text and parts up to a piece, and may come at any time. The message with the same
// messageId replaces the answer (model.js). Which parts are one is in parts.js.

import { answerItem } from "./items.js";
import { codePoints, isPart, partsOf, withPart } from "./parts.js";

const MAX_ANSWERS = 100;
const MAX_ENDED = 1000; // whose late pieces bring nothing back
// Of one answer, after a hole: more than an answer may have in all.
const MAX_HELD_CHARACTERS = 512 * 1024;
const PIECE_CHARACTERS = 100; // what holding one costs besides its text

export class Answers {
  #answers = new Map(); // messageId -> answer
  #ended = new Set(); // messageIds
  #max;

  constructor({ max = MAX_ANSWERS } = {}) {
    this.#max = max;
  }

  /** An answer that was asked for: nothing of it has been written. */
  expect(messageId, { userId, replyTo, regenerates, timestamp }) {
    if (this.#ended.has(messageId)) return;
    const answer = this.#answers.get(messageId) ?? this.#open(messageId, { userId, timestamp });
    answer.replyTo ??= replyTo ?? null;
    answer.regenerates ??= regenerates ?? null;
    answer.item = null;
  }

  /** `message.delta`. Returns false for a repeat. */
  delta({ userId, content, timestamp }) {
    const { messageId, index } = content;
    if (this.#ended.has(messageId)) return false;
    const answer = this.#answers.get(messageId) ?? this.#open(messageId, { userId, timestamp });
    if (index < answer.next || answer.held.has(index)) return false;
    hold(answer, content);
    catchUp(answer);
    return true;
  }

  /** `answer.state`: what was written up to and with piece `index`, -1 for nothing. */
  state({ userId, content, timestamp }) {
    const { messageId, replyTo, regenerates, index } = content;
    if (this.#ended.has(messageId)) return;
    const answer = this.#answers.get(messageId) ?? this.#open(messageId, { userId, timestamp });
    answer.replyTo = replyTo ?? answer.replyTo;
    answer.regenerates = regenerates ?? answer.regenerates;
    answer.item = null;
    const next = (index ?? -1) + 1;
    if (next < answer.next) return;
    answer.text = content.text ?? "";
    answer.characters = codePoints(answer.text);
    answer.parts = partsOf(content.parts);
    answer.next = next;
    for (const held of [...answer.held.keys()]) if (held < next) release(answer, held);
    catchUp(answer);
  }

  /** The message is there, of an answer or not. */
  end(messageId) {
    this.#ended.add(messageId);
    if (this.#ended.size > MAX_ENDED) this.#ended.delete(this.#ended.keys().next().value);
    this.#answers.delete(messageId);
  }

  clear() {
    this.#answers.clear();
  }

  items() {
    return [...this.#answers.values()].map((answer) => {
      answer.item ??= answerItem(shown(answer));
      return answer.item;
    });
  }

  /** What a reader who comes late needs, as events: `{event, data}`. */
  events() {
    return [...this.#answers.values()].flatMap((answer) => {
      const { messageId, userId, timestamp, replyTo, regenerates, text, parts, next, held } = answer;
      const base = { userId, timestamp };
      const content = { messageId, replyTo, index: next - 1, text, parts, status: "in_progress" };
      if (regenerates !== null) content.regenerates = regenerates;
      return [
        { event: "answer.state", data: { ...base, content } },
        ...[...held.values()].map((piece) => ({ event: "message.delta", data: { ...base, content: piece } })),
      ];
    });
  }

  #open(messageId, { userId, timestamp }) {
    const answer = {
      messageId, userId, timestamp, replyTo: null, regenerates: null,
      text: "", characters: 0, parts: [], next: 0, held: new Map(), heldCharacters: 0, item: null,
    };
    this.#answers.set(messageId, answer);
    if (this.#answers.size > this.#max) this.#answers.delete(this.#answers.keys().next().value);
    return answer;
  }
}

/** Apply the held pieces that follow what is known. */
function catchUp(answer) {
  while (answer.held.has(answer.next)) take(answer, release(answer, answer.next++));
  answer.item = null;
}

function hold(answer, piece) {
  answer.held.set(piece.index, piece);
  answer.heldCharacters += sizeOf(piece);
  while (answer.heldCharacters > MAX_HELD_CHARACTERS) {
    release(answer, answer.held.keys().next().value);
  }
}

function release(answer, index) {
  const piece = answer.held.get(index);
  answer.held.delete(index);
  answer.heldCharacters -= sizeOf(piece);
  return piece;
}

function sizeOf({ delta, data }) {
  const text = typeof delta === "string" ? delta : (JSON.stringify(data) ?? "");
  return text.length + PIECE_CHARACTERS;
}

/** Add one piece. Without a kind it is text: entries of the first edition have none. */
function take(answer, { kind = "text", delta, data }) {
  if (kind === "text") {
    answer.text += delta ?? "";
    answer.characters += codePoints(delta ?? "");
  } else if (isPart({ kind })) {
    answer.parts = withPart(answer.parts, { kind, offset: answer.characters, data });
  }
}

/** With pieces after a hole too: a reader who came late sees what there is. */
function shown(answer) {
  if (answer.held.size === 0) return { ...answer, incomplete: false };
  const whole = { ...answer, incomplete: true };
  for (const piece of [...answer.held.values()].sort((a, b) => a.index - b.index)) take(whole, piece);
  return whole;
}
