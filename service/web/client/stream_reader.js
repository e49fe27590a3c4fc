// Server-Sent Events from bytes: the parser, and reading one response to its end.
//
// It knows the format (HTML standard, "event stream") and no event's meaning. Reconnecting is in
// connection.js.

// The service's longest block is a text of 64 KiB and metadata of 64 KiB, both escaped six-fold.
const MAX_BLOCK_CHARACTERS = 4 * 1024 * 1024;

export class SseParser {
  #decoder = new TextDecoder(); // drops a byte order mark at the start
  #begun = ""; // a line whose end has not come
  #afterCr = false; // a line feed that comes next belongs to the line that has ended
  #event = "";
  #data = null;
  #size = 0;
  #id = "";
  #onBlock;
  #onRetry;

  /** `onBlock(event, id, data)` for each block with data; `onRetry(ms)` before the block's. */
  constructor(onBlock, onRetry = () => {}) {
    this.#onBlock = onBlock;
    this.#onRetry = onRetry;
  }

  /** Take bytes, cut anywhere. Throws when a block has no end. */
  push(bytes) {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (text === "") return;
    if (this.#afterCr && text[0] === "\n") text = text.slice(1);
    this.#afterCr = false;
    let start = 0;
    for (let at = 0; at < text.length; at++) {
      const code = text.charCodeAt(at);
      if (code !== 10 && code !== 13) continue;
      this.#line(this.#begun + text.slice(start, at));
      this.#begun = "";
      if (code === 13) {
        if (at + 1 === text.length) this.#afterCr = true;
        else if (text.charCodeAt(at + 1) === 10) at++;
      }
      start = at + 1;
    }
    // Never searched again, so that a long line in small pieces takes no longer than it must.
    this.#begun += text.slice(start);
    if (this.#begun.length + this.#size > MAX_BLOCK_CHARACTERS) {
      throw new RangeError("a block of the stream is too long");
    }
  }

  #line(line) {
    if (line === "") {
      this.#dispatch();
      return;
    }
    const colon = line.indexOf(":");
    if (colon === 0) return; // a comment
    const field = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value[0] === " ") value = value.slice(1);
    if (field === "data") {
      this.#data = this.#data === null ? value : `${this.#data}\n${value}`;
      this.#size += value.length;
    } else if (field === "event") this.#event = value;
    else if (field === "id" && !value.includes("\0")) this.#id = value;
    else if (field === "retry" && /^[0-9]+$/.test(value)) this.#onRetry(Number(value));
  }

  #dispatch() {
    const event = this.#event || "message";
    const data = this.#data;
    this.#event = "";
    this.#data = null;
    this.#size = 0;
    if (data !== null) this.#onBlock(event, this.#id, data);
  }
}

/**
 * Read a response to its end. `onBytes` is called for every piece, before its blocks.
 * Throws when the connection breaks, or the request's signal aborts it.
 */
export async function readStream(response, { onBytes, onBlock, onRetry }) {
  const parser = new SseParser(onBlock, onRetry);
  const reader = response.body.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      onBytes(value.length);
      parser.push(value);
    }
  } finally {
    // Ends the request when the parser or a caller's function threw.
    reader.cancel().catch(() => {});
  }
}
