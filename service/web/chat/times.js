// Times as the reader's language writes them.

const TIME = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const DATE_TIME = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "short" });
const FULL = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

/** Show an RFC 3339 time in a `time` element, and return what it shows. */
export function showTime(target, timestamp) {
  if (target.dateTime === timestamp) return target.textContent;
  const date = new Date(timestamp);
  if (Number.isNaN(date.getTime())) return "";
  const isToday = date.toDateString() === new Date().toDateString();
  target.dateTime = timestamp;
  target.title = FULL.format(date);
  target.textContent = (isToday ? TIME : DATE_TIME).format(date);
  return target.textContent;
}
