// Keeps a project's snapshot in a store, if there is one. A store that fails is not the reader's
// trouble: the next page starts without it. What a snapshot holds is in message_list.js.

const SAVE_MS = 1000; // after a change: many come together

export class Keeper {
  #store;
  #clock;
  #snapshot;
  #timer = null;

  /** `snapshot()` is asked for what to save; `store` may be null. */
  constructor(store, clock, snapshot) {
    this.#store = store;
    this.#clock = clock;
    this.#snapshot = snapshot;
  }

  async load() {
    return (await this.#store?.load().catch(() => null)) ?? null;
  }

  saveSoon() {
    if (this.#store === null || this.#timer !== null) return;
    this.#timer = this.#clock.setTimeout(() => {
      this.#timer = null;
      this.#save(this.#snapshot());
    }, SAVE_MS);
  }

  /** Save for the last time. */
  close(snapshot) {
    this.#save(snapshot);
    this.#end();
  }

  /** The user has lost access: nothing of the project may stay. */
  forget() {
    this.#store?.clear?.().catch(() => {});
    this.#end();
  }

  #save(snapshot) {
    this.#store?.save(snapshot).catch(() => {});
  }

  #end() {
    this.#store = null;
    this.#clock.clearTimeout(this.#timer);
  }
}
