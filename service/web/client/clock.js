// Time, timers and chance: the real ones, and what is built on any clock.

export const systemClock = {
  now: () => Date.now(),
  setTimeout: (callback, ms) => setTimeout(callback, ms),
  clearTimeout: (timer) => clearTimeout(timer),
  random: () => Math.random(),
};

/** A wait that others can end: `promise` resolves after `ms` (null: never), or at `end()`. */
export function pause(clock, ms) {
  let end;
  const promise = new Promise((resolve) => {
    const timer = ms === null ? undefined : clock.setTimeout(resolve, ms);
    end = () => {
      clock.clearTimeout(timer);
      resolve();
    };
  });
  return { promise, end };
}
