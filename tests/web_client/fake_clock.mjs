// A clock that moves when a test says so. Timers run in the order of their time; after each, what
// they set off may settle.

export class FakeClock {
  #now = 1_800_000_000_000;
  #timers = new Map();
  #number = 0;

  constructor({ random = () => 0.5 } = {}) {
    this.random = random;
  }

  now() {
    return this.#now;
  }

  setTimeout(callback, ms) {
    // As browsers and Node do it: fractions of a millisecond are dropped.
    this.#timers.set(++this.#number, { callback, at: this.#now + Math.trunc(Math.max(ms, 0)) });
    return this.#number;
  }

  clearTimeout(timer) {
    this.#timers.delete(timer);
  }

  /** How many timers wait. */
  get waiting() {
    return this.#timers.size;
  }

  /** Let promises settle, then move on by `ms`, through every timer on the way. */
  async advance(ms = 0) {
    const end = this.#now + ms;
    await settle();
    for (;;) {
      const due = [...this.#timers].filter(([, timer]) => timer.at <= end).sort((a, b) => a[1].at - b[1].at || a[0] - b[0])[0];
      if (due === undefined) break;
      const [number, { callback, at }] = due;
      this.#timers.delete(number);
      this.#now = Math.max(this.#now, at);
      callback();
      await settle();
    }
    this.#now = end;
  }
}

/** Let everything that needs no timer come to rest, streams included. */
export async function settle() {
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
}

/** A generator of numbers from 0 to 1 that a seed repeats (mulberry32). */
export function seeded(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4294967296;
  };
}
