// Making elements, and numbers as text. Nothing here knows what is shown.

/** An element with attributes, properties that begin with a dot, and children. */
export function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Set the text only when it differs: a live region is read out again otherwise. */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Show the text, or hide the element when there is none. */
export function notice(element, text) {
  setText(element, text);
  element.hidden = text === "";
}

const whole = new Intl.NumberFormat("en", {maximumFractionDigits: 0});
const tenths = new Intl.NumberFormat("en", {maximumFractionDigits: 1, minimumFractionDigits: 1});

export const number = (value) => (value == null ? "–" : whole.format(value));
export const perSecond = (value) => (value === 0 ? "0" : value < 0.1 ? "<0.1" : tenths.format(value));
export const milliseconds = (value) => (value == null ? "–" : tenths.format(value));

export function bytes(value) {
  if (value == null) return "–";
  const units = ["B", "KiB", "MiB", "GiB"];
  let left = value, unit = 0;
  while (left >= 1024 && unit < units.length - 1) { left /= 1024; unit += 1; }
  return `${unit === 0 || left >= 100 ? whole.format(left) : tenths.format(left)} ${units[unit]}`;
}

export function duration(seconds) {
  if (seconds == null) return "–";
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 172_800) return `${Math.floor(seconds / 3600)} h`;
  return `${Math.floor(seconds / 86_400)} days`;
}

export const clock = (date) => date.toLocaleTimeString("en-GB");
