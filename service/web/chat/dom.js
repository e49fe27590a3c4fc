// Making elements. Data becomes text nodes only: nothing here parses a string as HTML.

/**
 * Return a new element. `attributes` that are null or false are left out; `true` is an empty
 * attribute. `children` are elements, or strings that become text.
 */
export function element(name, attributes = {}, ...children) {
  const made = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    made.setAttribute(key, value === true ? "" : String(value));
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

/** Set an element's text, if it is another: unchanged text causes no layout and no announcement. */
export function setText(target, text) {
  if (target.textContent !== text) target.textContent = text;
}

/**
 * Return a function that calls `run` once in the next frame, however often it is called before.
 * A hidden page has no frames: there a timer takes their place, so that nothing piles up.
 */
export function coalesced(run) {
  let planned = false;
  const now = () => {
    planned = false;
    run();
  };
  return () => {
    if (planned) return;
    planned = true;
    if (document.hidden) setTimeout(now, 250);
    else requestAnimationFrame(now);
  };
}
