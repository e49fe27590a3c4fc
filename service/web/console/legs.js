// Events as they flow: the newest first, with the time of each leg as numbers and as a bar.

import {byId, bytes, make, milliseconds, number, setText} from "./elements.js";
import {Table} from "./table.js";

const SHOWN = 200;
const LEGS = [["publish", "publishedMs"], ["arrive", "arrivedMs"], ["first", "firstWriteMs"],
  ["last", "lastWriteMs"]];

let scaleMs = 1;
let rows = [];
let watchId = null;

const table = new Table(byId("legs"), "Events with the time of each leg", [
  {label: "Id", heads: true, text: (row) => row.id || `#${row.n}`},
  {label: "Legs", fill: bar},
  {label: "Published", number: true, text: (row) => milliseconds(row.publishedMs)},
  {label: "Arrived", number: true, text: (row) => milliseconds(row.arrivedMs)},
  {label: "First write", number: true, text: (row) => milliseconds(row.firstWriteMs)},
  {label: "Last write", number: true, text: (row) => milliseconds(row.lastWriteMs)},
  {label: "To", number: true, text: (row) => number(row.connections)},
  {label: "Event", text: (row) => row.event},
  {label: "User", name: true, text: (row) => row.userId ?? "–"},
  {label: "Size", number: true, text: (row) => bytes(row.bytes)},
], (row) => row.n);

export const legsAfter = () => rows[0]?.n ?? 0;

/** Begin with another project. */
export function clearLegs() {
  watchId = null;
  rows = [];
  table.fill([]);
  setText(byId("legs-note"), "waiting for events …");
}

export function showLegs(seen) {
  if (seen.watchId !== watchId) {
    // Another ring: it was not asked for a while, or another process answers. Numbers begin anew.
    watchId = seen.watchId;
    rows = [];
  }
  const known = rows[0]?.n ?? 0;
  rows = [...seen.events.filter((row) => row.n > known).reverse(), ...rows].slice(0, SHOWN);
  scaleMs = scaleOf(rows.map((row) => row.lastWriteMs ?? row.arrivedMs ?? 0));
  table.fill(rows);
  const totals = rows.map((row) => row.lastWriteMs).filter((value) => value !== null);
  setText(byId("legs-note"), note(seen, totals));
}

/** Nine of ten fit: one slow event must not make all others a line. */
function scaleOf(totals) {
  const sorted = totals.toSorted((a, b) => a - b);
  return Math.max(1, sorted[Math.floor(sorted.length * 0.9)] ?? 1);
}

function note(seen, totals) {
  if (seen.watchId === null) return "not watched: no store says where the project is";
  if (rows.length === 0) return "watching; nothing came yet";
  if (totals.length === 0) return `${number(rows.length)} events, written to nobody`;
  const sorted = totals.toSorted((a, b) => a - b);
  const median = sorted[Math.floor(sorted.length / 2)];
  return `commit to last write: median ${milliseconds(median)} ms, `
    + `most ${milliseconds(sorted.at(-1))} ms of ${number(totals.length)}`;
}

function bar(cell, row) {
  const box = cell.firstChild ?? cell.appendChild(make("div", {class: "leg-bar", "aria-hidden": "true"},
    ...LEGS.map(([name]) => make("span", {class: `leg-${name}`}))));
  let from = 0;
  LEGS.forEach(([, field], place) => {
    const to = Math.max(from, row[field] ?? from);
    const part = box.children[place];
    part.hidden = row[field] === null;
    part.style.left = `${(from / scaleMs) * 100}%`;
    part.style.width = `${((to - from) / scaleMs) * 100}%`;
    from = to;
  });
}
