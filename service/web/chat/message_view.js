// One message of the conversation: made once, changed in place, never rendered as markup.

import { element, setText } from "./dom.js";
import { PartsView } from "./parts_view.js";
import { showTime } from "./times.js";

// An answer that has ended can be written again.
const ANSWERS = new Set(["answer", "answer_stopped", "answer_failed"]);
// What a message of the assistant ended with (`metadata.response_data.type`).
const ENDINGS = {
  answer_stopped: "stopped",
  answer_failed: "failed",
  build_completed: "build completed",
  build_failed: "build failed",
};

export class MessageView {
  #actions;
  #author;
  #time;
  #note;
  #text;
  #below;
  #parts;
  #reactions;
  #isOpen;

  /** `actions` has `retry`, `discard` (client message id), `stop` and `regenerate` (message id). */
  constructor(actions) {
    this.#actions = actions;
    this.#author = element("span", { class: "author" });
    this.#time = element("time", {});
    this.#note = element("span", { class: "note" });
    this.#text = document.createTextNode("");
    this.#below = element("div", { class: "below" });
    this.#parts = null;
    this.#reactions = null;
    this.#isOpen = false;
    this.element = element(
      "article",
      { class: "message" },
      element("p", { class: "meta" }, this.#author, this.#time, this.#note),
      element("p", { class: "text", dir: "auto" }, this.#text),
      this.#below,
    );
  }

  /**
   * Show an item. `follows`: the one above is by the same author. `mine`: by the reader.
   * `replaced`: an answer that was written again; it is closed until asked for.
   */
  update(item, { follows, mine, replaced }) {
    const author = authorOf(item, mine);
    const classes = ["message", item.type, item.status];
    if (mine) classes.push("mine");
    if (follows) classes.push("follows");
    if (item.redacted) classes.push("redacted");
    if (replaced) classes.push("replaced");
    if (replaced && !this.#isOpen) classes.push("closed");
    this.element.className = classes.join(" ");
    if (item.seq !== null) this.element.dataset.seq = item.seq;
    this.element.setAttribute("aria-label", `${author}, ${showTime(this.#time, item.timestamp)}`);
    // Read out once when it is complete, not at every piece.
    if (item.status === "writing") this.element.setAttribute("aria-busy", "true");
    else this.element.removeAttribute("aria-busy");
    setText(this.#author, author);
    setText(this.#note, noteOf(item, replaced));
    this.#showText(textOf(item));
    this.#showParts(item.parts ?? []);
    this.#showReactions(item.reactions ?? {});
    this.#showActions(item, replaced);
  }

  /** An answer grows at its end: append the rest instead of laying out the whole again. */
  #showText(text) {
    const shown = this.#text.data;
    if (text === shown) return;
    if (shown !== "" && text.startsWith(shown)) this.#text.appendData(text.slice(shown.length));
    else this.#text.data = text;
  }

  #showParts(parts) {
    if (parts.length === 0) return;
    if (this.#parts === null) {
      this.#parts = new PartsView();
      this.#below.before(this.#parts.element);
    }
    this.#parts.update(parts);
  }

  #showReactions(reactions) {
    const given = Object.entries(reactions).filter(([, users]) => users.length > 0);
    const shown = given.map(([emoji, users]) => `${emoji} ${users.join(", ")}`).join("\n");
    if (shown === (this.#reactions?.title ?? "")) return;
    this.#reactions?.remove();
    this.#reactions = null;
    if (given.length === 0) return;
    this.#reactions = element("ul", {
      class: "reactions",
      "aria-label": "Reactions",
      title: shown,
    });
    for (const [emoji, users] of given) {
      this.#reactions.append(element("li", {}, `${emoji} ${users.length}`));
    }
    this.#below.before(this.#reactions);
  }

  #showActions(item, replaced) {
    const wanted = replaced ? "open" : actionsOf(item);
    if (this.#below.dataset.actions === wanted) return;
    this.#below.dataset.actions = wanted;
    this.#below.replaceChildren(...this.#buttons(wanted, item));
  }

  #buttons(wanted, item) {
    const { retry, discard, stop, regenerate } = this.#actions;
    if (wanted === "unsent") {
      return [
        button("Retry", () => retry(item.clientMsgId)),
        button("Discard", () => discard(item.clientMsgId)),
      ];
    }
    if (wanted === "stop") return [once("Stop", "Stopping …", () => stop(item.messageId))];
    if (wanted === "regenerate") {
      return [once("Regenerate", "Regenerating …", () => regenerate(item.messageId))];
    }
    return wanted === "open" ? [this.#opener()] : [];
  }

  #opener() {
    const made = button("Show it", () => {
      this.#isOpen = !this.#isOpen;
      this.element.classList.toggle("closed", !this.#isOpen);
      made.setAttribute("aria-expanded", String(this.#isOpen));
      setText(made, this.#isOpen ? "Hide it" : "Show it");
    });
    made.setAttribute("aria-expanded", "false");
    return made;
  }
}

function actionsOf({ status, messageId, metadata, redacted }) {
  if (status === "failed") return "unsent";
  if (status === "writing") return messageId === null ? "" : "stop";
  return ANSWERS.has(metadata?.response_data?.type) && !redacted ? "regenerate" : "";
}

/** A button that acts once, unless what it asked for was refused. */
function once(text, doing, act) {
  const made = button(text, async () => {
    made.disabled = true;
    setText(made, doing);
    if (await act()) return;
    made.disabled = false;
    setText(made, text);
  });
  return made;
}

function button(text, onClick) {
  const made = element("button", { type: "button" }, text);
  made.addEventListener("click", onClick);
  return made;
}

function authorOf(item, mine) {
  if (item.type === "assistant") return "Assistant";
  if (item.type === "system") return "System";
  return mine ? "You" : (item.userId ?? "Unknown");
}

function textOf(item) {
  if (item.redacted) return "This message was deleted";
  if (item.decoding) return "…";
  return item.incomplete ? `… ${item.text}` : item.text;
}

/** What stands beside the time: the state of the message, in words. */
function noteOf(item, replaced) {
  const notes = [];
  if (replaced) notes.push("answered again below");
  if (item.status === "sending") notes.push("sending …");
  if (item.status === "failed")
    notes.push(`not sent${item.error ? `: ${item.error.message}` : ""}`);
  if (item.status === "writing") notes.push("writing …");
  const response = item.metadata?.response_data;
  const ending = ENDINGS[response?.type];
  if (ending && response.stoppedBy) notes.push(`${ending} by ${response.stoppedBy}`);
  else if (ending) notes.push(response.reason ? `${ending}: ${response.reason}` : ending);
  if (item.editedSeq && !item.redacted) notes.push("edited");
  if (item.replyCount) notes.push(item.replyCount === 1 ? "1 reply" : `${item.replyCount} replies`);
  return notes.join(" · ");
}
