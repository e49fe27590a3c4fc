// The rows of the conversation: messages and builds, each an element that is kept by its key.
//
// A snapshot of the client is compared with what is shown by identity (a changed item is another
// object), so an answer that grows among thousands of messages changes one element. What a row looks
// like is in message_view.js and build_view.js; where the reader is, in scroller.js.

import { BuildView } from "./build_view.js";
import { MessageView } from "./message_view.js";

// Later than this after the one above, a message shows its author again.
const GROUP_MS = 5 * 60 * 1000;

export class Timeline {
  #log;
  #actions;
  #rows;
  #last;

  /** `log` gets the rows; `actions` are those of both views. */
  constructor(log, actions) {
    this.#log = log;
    this.#actions = actions;
    this.#rows = new Map(); // key -> {view, value, look}
    this.#last = null;
  }

  /** Show a snapshot; `me` is the reader's user id, if known. Return whether there is a new last row. */
  show(state, me) {
    const rows = rowsOf(state);
    const replaced = replacedIn(state.messages);
    const wanted = new Set(rows.map((row) => row.key));
    for (const [key, row] of this.#rows) {
      if (wanted.has(key)) continue;
      row.view.element.remove();
      this.#rows.delete(key);
    }
    let at = this.#log.firstElementChild;
    let above = null;
    for (const { key, item, build } of rows) {
      const row = this.#rows.get(key) ?? this.#make(key, build !== undefined);
      if (build === undefined) updateMessage(row, item, { above, me, replaced: replaced.has(item.messageId) });
      else updateBuild(row, build);
      if (row.view.element === at) at = at.nextElementSibling;
      else this.#log.insertBefore(row.view.element, at);
      above = item;
    }
    const last = state.messages.at(-1)?.key ?? null;
    const isNew = last !== this.#last;
    this.#last = last;
    return isNew;
  }

  #make(key, isBuild) {
    const view = isBuild ? new BuildView(this.#actions) : new MessageView(this.#actions);
    const row = { view, value: null, above: null, me: null, replaced: false };
    this.#rows.set(key, row);
    return row;
  }
}

/** The rows in order: messages, then the builds under way. A finished build is a message. */
function rowsOf(state) {
  const rows = state.messages.map((item) => ({ key: item.key, item }));
  for (const build of state.builds) {
    if (build.status === "completed" || build.status === "failed") continue;
    rows.push({ key: `build ${build.buildId}`, build });
  }
  return rows;
}

/** The answers that were written again. */
function replacedIn(items) {
  const ids = new Set();
  for (const { regenerates } of items) if (regenerates !== undefined) ids.add(regenerates);
  return ids;
}

// Compared by identity first: this runs for every message at every change.
function updateMessage(row, item, { above, me, replaced }) {
  const isSame = row.value === item && row.above === above && row.me === me;
  if (isSame && row.replaced === replaced) return;
  Object.assign(row, { value: item, above, me, replaced });
  const mine = item.type === "user" && (item.userId === null || item.userId === me);
  const follows = above !== null && belongTogether(above, item);
  row.view.update(item, { follows, mine, replaced });
}

function updateBuild(row, build) {
  if (row.value === build) return;
  row.value = build;
  row.view.update(build);
}

function belongTogether(above, item) {
  return (
    above.type === item.type &&
    above.userId === item.userId &&
    Date.parse(item.timestamp) - Date.parse(above.timestamp) < GROUP_MS
  );
}
