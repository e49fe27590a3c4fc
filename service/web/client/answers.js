// Answers while they are written: their pieces in order, each once. Pure: no I/O, no clock.
//
// Pieces come at least once, and after a reconnect perhaps not from the first one; `answer.state`
// has all text up to a piece. The message with the same messageId replaces the answer (model.js).

import { answerItem } from "./items.js";

const MAX_ANSWERS = 100;
const MAX_HELD_PIECES = 5000; // of one answer, after a hole

export class Answers {
  #answers = new Map(); // messageId -> answer

  /** An answer that was asked for: nothing of it has been written. */
  expect(messageId, { userId, replyTo, timestamp }) {
    if (!this.#answers.has(messageId)) this.#open(messageId, { userId, timestamp, replyTo });
  }

  /** `message.delta`. Returns false for a repeat. */
  delta({ userId, content, timestamp }) {
    const { messageId, index } = content;
    const answer = this.#answers.get(messageId) ?? this.#open(messageId, { userId, timestamp });
    if (index < answer.next || answer.held.has(index)) return false;
    answer.held.set(index, content);
    if (answer.held.size > MAX_HELD_PIECES) answer.held.delete(answer.held.keys().next().value);
    while (answer.held.has(answer.next)) {
      const piece = answer.held.get(answer.next);
      answer.held.delete(answer.next);
      take(answer, piece);
      answer.next++;
    }
    answer.item = null;
    return true;
  }

  /** `answer.state`: what was written up to and with piece `index`. */
  state({ userId, content, timestamp }) {
    const { messageId, replyTo = null, index } = content;
    const answer = this.#answers.get(messageId) ?? this.#open(messageId, { userId, timestamp });
    answer.replyTo = replyTo ?? answer.replyTo;
    answer.item = null;
    const next = (index ?? -1) + 1;
    if (next <= answer.next) return;
    answer.text = content.text ?? "";
    answer.parts = content.parts ?? [];
    answer.next = next;
    const later = [...answer.held.values()].filter((piece) => piece.index >= next);
    answer.held.clear();
    for (const piece of later) this.delta({ userId, content: piece, timestamp });
  }

  end(messageId) {
    return this.#answers.delete(messageId);
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

  #open(messageId, { userId, timestamp, replyTo = null }) {
    const answer = {
      messageId, userId, timestamp, replyTo, text: "", parts: [], next: 0, held: new Map(), item: null,
    };
    this.#answers.set(messageId, answer);
    if (this.#answers.size > MAX_ANSWERS) this.#answers.delete(this.#answers.keys().next().value);
    return answer;
  }
}

function take(answer, { kind = "text", index, delta, data }) {
  if (kind === "text") answer.text += delta ?? "";
  else answer.parts = [...answer.parts, part(kind, index, delta, data)];
}

function part(kind, index, delta, data) {
  return { kind, index, ...(delta !== undefined && { delta }), ...(data !== undefined && { data }) };
}

/** With pieces after a hole too: a reader who came late sees what there is. */
function shown(answer) {
  if (answer.held.size === 0) return { ...answer, incomplete: false };
  const whole = { ...answer, incomplete: true };
  for (const piece of [...answer.held.values()].sort((a, b) => a.index - b.index)) take(whole, piece);
  return whole;
}
