// An answer as the parts and chunks of the AI SDK's UI messages: what item gives which. Pure.
//
// `ChunkWriter` says what is new of an answer that grows, in the chunks of the UI message stream
// protocol; `uiParts` says what all chunks of an answer come to. So an answer that was followed and
// the same one read from its message have the same parts. Streams are in answer_stream.js.

const DATA_TYPE = /^data-[\w-]+$/;
const FALLBACK_NAME = "tool";

/** Makes the chunks of one answer. */
export class ChunkWriter {
  #shown = []; // segments that were given out; the last one may grow
  #tools = new Map(); // a call's id -> {callId, name, text, state}
  #calls = 0;

  /**
   * The chunks that lead from what was given out to this text and these parts. `isEnded`: nothing
   * follows. Null when it does not go on from there: a stream cannot take back what it said.
   */
  advance(item, isEnded) {
    const segments = segmentsOf(item);
    if (!continues(this.#shown, segments)) return null;
    const chunks = [];
    const from = Math.max(this.#shown.length - 1, 0);
    for (let at = from; at < segments.length; at++) {
      const before = this.#shown[at];
      const isLast = at === segments.length - 1;
      this.#write(chunks, at, segments[at], before, isEnded || !isLast);
    }
    this.#shown = segments;
    if (isEnded) for (const tool of this.#tools.values()) settle(chunks, tool, { isOver: true });
    return chunks;
  }

  /** End what is open, as it is: for a reader who goes, or an answer that was written anew. */
  end() {
    const chunks = [];
    const last = this.#shown.at(-1);
    const at = this.#shown.length - 1;
    if (last?.kind === "text" || last?.kind === "reasoning") chunks.push({ type: `${last.kind}-end`, id: `${at}` });
    for (const tool of this.#tools.values()) settle(chunks, tool, { isOver: true });
    return chunks;
  }

  #write(chunks, at, segment, before, isClosed) {
    const { kind } = segment;
    if (kind === "text" || kind === "reasoning") {
      const id = `${at}`;
      if (before === undefined) chunks.push({ type: `${kind}-start`, id });
      const delta = segment.text.slice(before?.text.length ?? 0);
      if (delta !== "") chunks.push({ type: `${kind}-delta`, id, delta });
      if (isClosed) chunks.push({ type: `${kind}-end`, id });
    } else if (kind === "input") this.#input(chunks, segment, before, isClosed);
    else if (before === undefined || before.json !== segment.json) {
      if (kind === "output") this.#output(chunks, segment);
      else chunks.push(dataChunk(at, segment.data));
    }
  }

  #input(chunks, { id, name, text }, before, isClosed) {
    const tool = before === undefined ? this.#toolFor(chunks, id, name) : this.#tools.get(id);
    const inputTextDelta = text.slice(before?.text.length ?? 0);
    tool.text += inputTextDelta;
    if (inputTextDelta !== "") chunks.push({ type: "tool-input-delta", toolCallId: tool.callId, inputTextDelta });
    // Not whole yet: the input of another call may stand between its pieces.
    if (isClosed) settle(chunks, tool, {});
  }

  /** The call whose input goes on, or another one: some endpoints give each call the same id. */
  #toolFor(chunks, id, name) {
    const known = this.#tools.get(id);
    if (known?.state === "streaming") return known;
    const callId = known === undefined ? id : `${id} ${++this.#calls}`;
    const tool = { callId, name: name ?? known?.name ?? FALLBACK_NAME, text: "", state: "streaming" };
    this.#tools.set(id, tool);
    chunks.push({ type: "tool-input-start", toolCallId: callId, toolName: tool.name, ...EXECUTED });
    return tool;
  }

  #output(chunks, { id, name, output }) {
    if (!this.#tools.has(id)) this.#toolFor(chunks, id, name);
    const tool = this.#tools.get(id);
    settle(chunks, tool, { hasRun: true });
    tool.state = "done";
    chunks.push({ type: "tool-output-available", toolCallId: tool.callId, output, ...EXECUTED });
  }
}

// By the assistant, wherever it runs: nothing for the page to do.
const EXECUTED = { dynamic: true, providerExecuted: true };

/** The parts of a UI message for an answer, or for what there is of one. */
export function uiParts(item, isEnded) {
  const parts = [];
  const open = new Map(); // id of a chunk -> part
  const chunks = new ChunkWriter().advance(item, isEnded);
  for (const { type, id, toolCallId, toolName, delta, data, input, output, errorText } of chunks) {
    const tool = parts.find((part) => part.toolCallId === toolCallId && part.type === "dynamic-tool");
    if (type === "text-start" || type === "reasoning-start") {
      const part = type === "text-start" ? { type: "text" } : { type: "reasoning", id };
      open.set(id, Object.assign(part, { text: "", state: "streaming" }));
      parts.push(part);
    } else if (type === "text-end" || type === "reasoning-end") open.get(id).state = "done";
    else if (type === "text-delta" || type === "reasoning-delta") open.get(id).text += delta;
    else if (type === "tool-input-start") {
      parts.push({ type: "dynamic-tool", toolName, toolCallId, state: "input-streaming", providerExecuted: true });
    } else if (type === "tool-input-available") Object.assign(tool, { state: "input-available", input });
    else if (type === "tool-input-error") Object.assign(tool, { state: "output-error", input, errorText });
    else if (type === "tool-output-available") Object.assign(tool, { state: "output-available", output });
    else if (DATA_TYPE.test(type)) {
      const known = parts.find((part) => part.type === type && part.id === id);
      if (known === undefined) parts.push({ type, id, data });
      else known.data = data;
    }
  }
  return parts;
}

/** Text and parts in their order: a part stands where its offset says. */
function segmentsOf({ text, parts = [] }) {
  const segments = [];
  let points = 0;
  let at = 0; // in UTF-16 units
  for (const part of parts) {
    let end = at;
    for (; points < part.offset && end < text.length; points++) end += text.codePointAt(end) > 0xffff ? 2 : 1;
    if (end > at) segments.push({ kind: "text", text: text.slice(at, end) });
    at = end;
    segments.push(segmentOf(part));
  }
  if (at < text.length) segments.push({ kind: "text", text: text.slice(at) });
  return segments;
}

/** A part that is not as docs/protocol.md §5 says is data. */
function segmentOf({ kind, data }) {
  const { id, name, text } = data ?? {};
  if (kind === "reasoning" && typeof text === "string") return { kind, text };
  if (kind === "tool" && typeof id === "string") {
    const named = typeof name === "string" ? name : undefined;
    if (Object.hasOwn(data, "output")) {
      return { kind: "output", id, name: named, output: data.output, json: JSON.stringify(data) };
    }
    if (typeof text === "string") return { kind: "input", id, name: named, text };
  }
  return { kind: "data", data, json: JSON.stringify(data) };
}

function continues(shown, segments) {
  return shown.length <= segments.length && shown.every((before, at) => {
    const { kind, id, text, json } = segments[at];
    if (kind !== before.kind || id !== before.id) return false;
    const mayGrow = at === shown.length - 1;
    if (text !== undefined) return mayGrow ? text.startsWith(before.text) : text === before.text;
    return mayGrow || json === before.json;
  });
}

/** Give out a call's input once it is whole; `hasRun` or `isOver`: as it is. */
function settle(chunks, tool, { hasRun = false, isOver = false }) {
  if (tool.state !== "streaming") return;
  const { callId: toolCallId, name: toolName, text } = tool;
  const parsed = text === "" && (hasRun || isOver) ? {} : objectOf(text);
  if (parsed === undefined && !hasRun && !isOver) return;
  tool.state = "available";
  if (parsed !== undefined || hasRun) {
    chunks.push({ type: "tool-input-available", toolCallId, toolName, input: parsed ?? text, ...EXECUTED });
  } else {
    const errorText = "The input of the call is not complete";
    chunks.push({ type: "tool-input-error", toolCallId, toolName, input: text, errorText, ...EXECUTED });
  }
}

function objectOf(text) {
  try {
    const value = JSON.parse(text);
    return value !== null && typeof value === "object" ? value : undefined;
  } catch {
    return undefined;
  }
}

/** Data that is a data part of the AI SDK already stays one; other data is `data-part`. */
function dataChunk(at, data) {
  const isOne = DATA_TYPE.test(data?.type) && Object.hasOwn(data, "data");
  const id = isOne && typeof data.id === "string" ? data.id : `${at}`;
  return isOne ? { type: data.type, id, data: data.data } : { type: "data-part", id, data };
}
