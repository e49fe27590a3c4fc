// What stands above the oldest message: that there is more, that there is none, or that it failed.

import { setText } from "./dom.js";

export class HistoryView {
  #root;
  #text;
  #button;
  #load;
  #failed;
  #state;

  /** `load()` fetches older messages; `button` is offered when that failed. */
  constructor({ root, text, button, load }) {
    this.#root = root;
    this.#text = text;
    this.#button = button;
    this.#load = load;
    this.#failed = false;
    this.#state = { hasOlder: false, messages: [] };
    button.addEventListener("click", () => this.loadOlder());
  }

  update(state) {
    this.#state = state;
    this.#root.hidden = state.messages.length === 0;
    setText(this.#text, this.#sentence(state.hasOlder));
    this.#button.hidden = !(state.hasOlder && this.#failed);
  }

  /** Called when the reader comes near the start. */
  async loadOlder() {
    if (!this.#state.hasOlder || this.#state.loadingOlder) return;
    try {
      await this.#load();
      this.#failed = false;
    } catch {
      this.#failed = true;
    }
    this.update(this.#state);
  }

  #sentence(hasOlder) {
    if (!hasOlder) return "This is the beginning";
    return this.#failed ? "Older messages could not be loaded" : "Older messages …";
  }
}
