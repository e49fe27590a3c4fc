// The parts of an answer that are not its text: reasoning, calls of tools and their results, data.
// Closed until asked for.

import { element, setText } from "./dom.js";

// More is no reading matter, and would make the page slow.
const MAX_SHOWN = 200;
const MAX_CHARACTERS = 4000;

export class PartsView {
  #summary;
  #rows;

  constructor() {
    this.#summary = element("summary");
    this.#rows = []; // {label, text} elements, one pair for each part
    this.element = element("details", { class: "parts" }, this.#summary);
  }

  /** Show parts as the client joined them: one for each step, in order. */
  update(parts) {
    const steps = stepsOf(parts);
    const count = parts.length === 1 ? "1 step" : `${parts.length} steps`;
    setText(this.#summary, steps.length === 0 ? count : `${count}, the last: ${steps.at(-1).label}`);
    steps.forEach(({ label, text }, at) => {
      const row = this.#rows[at] ?? this.#add();
      setText(row.label, label);
      setText(row.text, shortened(text));
    });
    for (const row of this.#rows.splice(steps.length)) {
      row.label.remove();
      row.text.remove();
    }
  }

  #add() {
    const row = { label: element("p", { class: "step" }), text: element("pre", { dir: "auto" }) };
    this.#rows.push(row);
    this.element.append(row.label, row.text);
    return row;
  }
}

/** What each part is, in words, and what it says. */
function stepsOf(parts) {
  const names = new Map(); // id of a call -> name of its tool
  return parts.slice(0, MAX_SHOWN).map(({ kind, data }) => {
    const { id, name, text } = data ?? {};
    if (kind === "reasoning" && typeof text === "string") return { label: "Reasoning", text };
    if (kind === "tool" && typeof name === "string") names.set(id, name);
    const tool = names.get(id) ?? "a tool";
    if (kind === "tool" && data && "output" in data) {
      return { label: `Result of ${tool}`, text: written(data.output) };
    }
    if (kind === "tool" && typeof text === "string") {
      return { label: `Call of ${tool}`, text: indented(text) };
    }
    return { label: kind === "tool" ? "Tool" : "Data", text: written(data) };
  });
}

function written(value) {
  return typeof value === "string" ? value : (JSON.stringify(value, null, 1) ?? "");
}

/** JSON that is whole is shown in lines; what is still being written as it came. */
function indented(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 1);
  } catch {
    return text;
  }
}

function shortened(text) {
  return text.length > MAX_CHARACTERS ? `${text.slice(0, MAX_CHARACTERS)} …` : text;
}
