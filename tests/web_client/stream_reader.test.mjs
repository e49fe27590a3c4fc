// The parser of Server-Sent Events, against the HTML standard's rules and docs/protocol.md §6.
import assert from "node:assert/strict";
import test from "node:test";
import { SseParser } from "../../service/web/client/stream_reader.js";

function parse(...pieces) {
  const blocks = [];
  const retries = [];
  const parser = new SseParser((...block) => blocks.push(block), (ms) => retries.push(ms));
  for (const piece of pieces) parser.push(piece);
  return { blocks, retries };
}
const bytes = (text) => new TextEncoder().encode(text);

const TEXT =
  "\ufeffevent: stream.open\r\nid: 7\r\nretry: 250\r\ndata: {\"a\":1}\r\n\r\n" +
  ": a comment\n\nevent: message.new\nid: 8\ndata: größer 🧵 漢\n\n" +
  "data:no space\rdata:  two\r\rid: 9\n\ndata\nid\n\n";
const BLOCKS = [
  ["stream.open", "7", '{"a":1}'],
  ["message.new", "8", "größer 🧵 漢"],
  ["message", "8", "no space\n two"],
  ["message", "", ""],
];

test("a stream is read whole", () => {
  assert.deepEqual(parse(bytes(TEXT)), { blocks: BLOCKS, retries: [250] });
});

test("a stream may be cut at every byte, within characters and line ends too", () => {
  const all = bytes(TEXT);
  for (let cut = 1; cut < all.length; cut++) {
    assert.deepEqual(parse(all.slice(0, cut), all.slice(cut)).blocks, BLOCKS, `cut at ${cut}`);
  }
  assert.deepEqual(parse(...Array.from(all, (_, at) => all.slice(at, at + 1))).blocks, BLOCKS);
});

for (const [name, text, expected] of [
  ["a byte order mark is dropped at the start alone", "\ufeffdata: \ufeffx\n\n", [["message", "", "\ufeffx"]]],
  ["an id is kept until another comes", "id: 1\ndata: a\n\ndata: b\n\n", [["message", "1", "a"], ["message", "1", "b"]]],
  ["an id in a block without data counts", "id: 3\n\ndata: a\n\n", [["message", "3", "a"]]],
  ["an id with U+0000 is ignored", "id: 1\ndata: a\n\nid: 2\0\ndata: b\n\n", [["message", "1", "a"], ["message", "1", "b"]]],
  ["an event's name ends with its block", "event: x\n\ndata: a\n\n", [["message", "", "a"]]],
  ["a block without its empty line is not dispatched", "data: a\n", []],
  ["unknown fields and comments are ignored", "what: x\n:data: y\ndata: a\n\n", [["message", "", "a"]]],
  ["line separators of Unicode end no line", "data: \u2028\u2029\x85\v\n\n", [["message", "", "\u2028\u2029\x85\v"]]],
]) {
  test(name, () => assert.deepEqual(parse(bytes(text)).blocks, expected));
}

test("a retry that is no number is ignored", () => {
  assert.deepEqual(parse(bytes("retry: -1\nretry: 1e3\nretry: 5x\nretry: 40\n\n")).retries, [40]);
});

test("a line without an end is given up: memory is bounded", () => {
  const piece = bytes("x".repeat(1024 * 1024));
  assert.throws(() => parse(bytes("data: "), piece, piece, piece, piece), RangeError);
});

test("a block without an end is given up", () => {
  const piece = bytes(`data: ${"x".repeat(1024 * 1024)}\n`);
  assert.throws(() => parse(piece, piece, piece, piece, piece), RangeError);
});

test("a long line in small pieces takes time in proportion to its length", () => {
  // Looking through the whole line again for each piece would be 5 * 10^9 steps.
  const pieces = Array.from({ length: 50_000 }, () => bytes("0123"));
  const { blocks } = parse(bytes("data: "), ...pieces, bytes("\n\n"));
  assert.equal(blocks[0][2].length, 200_000);
});
