// The pieces of an answer that are not its text: reasoning, tools, data. Closed until asked for.

import { element, setText } from "./dom.js";

// More of one piece is no reading matter, and would make the page slow.
const MAX_CHARACTERS = 4000;

export class PartsView {
  #summary;
  #text;

  constructor() {
    this.#summary = element("summary");
    this.#text = element("pre");
    this.element = element("details", { class: "parts" }, this.#summary, this.#text);
  }

  update(parts) {
    setText(this.#summary, parts.length === 1 ? "1 step" : `${parts.length} steps`);
    setText(this.#text, lines(parts).join("\n"));
  }
}

/** Pieces of one kind that follow each other are one text. */
function lines(parts) {
  const texts = [];
  let last = null;
  for (const part of parts) {
    const text = part.delta ?? JSON.stringify(part.data, null, 1) ?? "";
    if (part.kind === "reasoning" && last === "reasoning") texts[texts.length - 1] += text;
    else texts.push(part.kind === "reasoning" ? text : `${part.kind}: ${text}`);
    last = part.kind;
  }
  return texts.map((text) =>
    text.length > MAX_CHARACTERS ? `${text.slice(0, MAX_CHARACTERS)} …` : text,
  );
}
