// What stands above the oldest message: that there is more, that there is none, or that it failed.

import {setText} from "./dom.js";

export class HistoryView {
  /** `load()` fetches older messages; `button` is offered when that failed. */
  constructor({root, text, button, load}) {
    this._root = root;
    this._text = text;
    this._button = button;
    this._load = load;
    this._failed = false;
    this._state = {hasOlder: false, messages: []};
    button.addEventListener("click", () => this.loadOlder());
  }

  update(state) {
    this._state = state;
    this._root.hidden = state.messages.length === 0;
    setText(this._text, this._sentence(state.hasOlder));
    this._button.hidden = !(state.hasOlder && this._failed);
  }

  /** Called when the reader comes near the start. */
  async loadOlder() {
    if (!this._state.hasOlder || this._state.loadingOlder) return;
    try {
      await this._load();
      this._failed = false;
    } catch {
      this._failed = true;
    }
    this.update(this._state);
  }

  _sentence(hasOlder) {
    if (!hasOlder) return "This is the beginning";
    return this._failed ? "Older messages could not be loaded" : "Older messages …";
  }
}
