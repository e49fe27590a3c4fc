// A set of seqs, kept as ranges: which part of the log is known. Pure.
//
// Seqs have no holes, so what is missing is arithmetic. Which range is wanted is not decided here.

export class SeqRanges {
  #ranges = []; // [first, last], inclusive, ascending, never adjacent

  add(first, last = first) {
    if (last < first) return;
    const ranges = this.#ranges;
    const newest = ranges[ranges.length - 1];
    if (newest && first === newest[1] + 1) {
      newest[1] = last; // the usual case: the next message
      return;
    }
    const kept = [];
    let joined = [first, last];
    for (const range of ranges) {
      if (range[1] < joined[0] - 1 || range[0] > joined[1] + 1) kept.push(range);
      else joined = [Math.min(range[0], joined[0]), Math.max(range[1], joined[1])];
    }
    kept.push(joined);
    this.#ranges = kept.sort((a, b) => a[0] - b[0]);
  }

  remove(seq) {
    this.#ranges = this.#ranges.flatMap(([first, last]) =>
      seq < first || seq > last
        ? [[first, last]]
        : [[first, seq - 1], [seq + 1, last]].filter((range) => range[0] <= range[1]),
    );
  }

  has(seq) {
    const ranges = this.#ranges;
    for (let index = ranges.length - 1; index >= 0; index--) {
      if (seq >= ranges[index][0]) return seq <= ranges[index][1];
    }
    return false;
  }

  /** What is not in the set, between two exclusive bounds: exclusive bounds again, ascending. */
  missing(after, before) {
    const gaps = [];
    let low = after;
    for (const [first, last] of this.#ranges) {
      if (last <= low) continue;
      if (first >= before) break;
      if (first > low + 1) gaps.push({ after: low, before: first });
      low = last;
    }
    if (before > low + 1) gaps.push({ after: low, before });
    return gaps;
  }

  dropUpTo(seq) {
    this.#ranges = this.#ranges
      .filter((range) => range[1] > seq)
      .map(([first, last]) => [Math.max(first, seq + 1), last]);
  }

  clear() {
    this.#ranges = [];
  }
}
