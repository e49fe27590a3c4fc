// The parts of an answer: its pieces that are not text, and which of them are one. Pure.
//
// docs/protocol.md §5: adjacent pieces of one kind whose data are objects that differ in `text`
// alone (a string in both) are one, with their texts joined. `offset` of a part is the number of
// Unicode code points of the answer's text before it, so two parts are adjacent when it is the same.

const KINDS = new Set(["reasoning", "tool", "data"]);
const MAX_PARTS = 2000; // of one answer; the service keeps 64 KiB of them

/** Whether a piece or a part is of a kind that is known here. */
export function isPart(value) {
  return value !== null && typeof value === "object" && KINDS.has(value.kind);
}

/** The parts that the service sent, without what is none. */
export function partsOf(value) {
  if (!Array.isArray(value)) return [];
  return value.slice(0, MAX_PARTS)
    .filter((part) => isPart(part) && Number.isInteger(part.offset) && part.offset >= 0)
    .map(({ kind, offset, data }) => ({ kind, offset, data }));
}

/** The parts with one more at their end: joined to the last one if the rule says so. A new array. */
export function withPart(parts, part) {
  const last = parts.at(-1);
  const data = last?.kind === part.kind && last.offset === part.offset
    ? joined(last.data, part.data)
    : undefined;
  if (data !== undefined) return [...parts.slice(0, -1), { ...last, data }];
  return parts.length < MAX_PARTS ? [...parts, part] : parts;
}

/** How many Unicode code points a string has. */
export function codePoints(text) {
  let count = 0;
  for (const _ of text) count++;
  return count;
}

function joined(before, after) {
  if (typeof before?.text !== "string" || typeof after?.text !== "string") return undefined;
  const { text, ...rest } = after;
  const { text: head, ...known } = before;
  return same(known, rest) ? { ...known, text: head + text } : undefined;
}

/** Whether two JSON values are the same, whatever the order of their members. */
function same(a, b) {
  if (a === b) return true;
  if (a === null || b === null || typeof a !== "object" || typeof b !== "object") return false;
  if (Array.isArray(a) !== Array.isArray(b)) return false;
  const keys = Object.keys(a);
  return keys.length === Object.keys(b).length &&
    keys.every((key) => Object.hasOwn(b, key) && same(a[key], b[key]));
}
