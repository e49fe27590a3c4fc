// The view of the process that answered: its parts, its totals, and the projects it has readers of.

import {byId, bytes, duration, make, notice, number, perSecond, setText} from "./elements.js";
import {Table} from "./table.js";

const projects = new Table(byId("projects"), "Projects with readers in this process", [
  {label: "Project", heads: true, name: true, sort: (row) => row.projectId, fill: projectLink},
  {label: "Head", number: true, sort: (row) => row.headSeq, text: (row) => number(row.headSeq)},
  {label: "Per s (10 s)", number: true, sort: (row) => row.perSecond10s,
    text: (row) => perSecond(row.perSecond10s)},
  {label: "Per s (1 min)", number: true, sort: (row) => row.perSecond60s,
    text: (row) => perSecond(row.perSecond60s)},
  {label: "Lag", number: true, sort: (row) => row.lagSeqs, fill: problemNumber("lagSeqs")},
  {label: "Streams", number: true, sort: (row) => row.streams, text: (row) => number(row.streams)},
  {label: "Blocked", number: true, sort: (row) => row.blocked, fill: problemNumber("blocked")},
  {label: "Memory", number: true, sort: (row) => row.tailBytes, text: (row) => bytes(row.tailBytes)},
], (row) => row.projectId, ["Per s (10 s)", true]);

const HEALTH = {healthy: "good", degraded: "warn", unhealthy: "bad"};

function projectLink(cell, row) {
  if (!cell.firstChild) cell.append(make("a", {href: `#project=${row.projectId}`}, row.projectId));
}

function problemNumber(field) {
  return (cell, row) => {
    setText(cell, number(row[field]));
    cell.classList.toggle("bad", row[field] > 0);
  };
}

export function showOverview(seen) {
  const {process, totals, health, work} = seen;
  const behind = process.workers > 1 ? `, 1 of ${process.workers} behind this port` : "";
  setText(byId("process"), `process ${process.id}${behind}, pid ${process.pid}, `
    + `version ${process.version}, up ${duration(process.uptimeSeconds)}`);
  fillTotals([
    ["Health", health.status, "", HEALTH[health.status]],
    ["Messages a second", perSecond(totals.perSecond10s),
      `${perSecond(totals.perSecond60s)} over a minute`],
    ["Streams", number(totals.streams), `${number(totals.blocked)} blocked`,
      totals.blocked ? "warn" : ""],
    ["Projects", number(totals.projects), `${bytes(totals.tailBytes)} in memory`],
    ...workTotals(work),
  ]);
  notice(byId("overview-missing"), seen.missing
    .map((each) => `${each.part}: ${each.why}. What it would say is missing here.`).join(" "));
  projects.fill(seen.projects);
  byId("projects").hidden = seen.projects.length === 0;
  byId("no-projects").hidden = seen.projects.length > 0;
  fillParts(health.parts);
}

function workTotals(work) {
  if (!work) return [];
  const {builds} = work;
  const going = builds && (builds.queued ?? 0) + (builds.in_progress ?? 0);
  const ended = builds && `${number(builds.completed ?? 0)} completed, `
    + `${number(builds.failed ?? 0)} failed in a day`;
  return [
    ["Builds under way", number(going), ended ?? "not known"],
    ["Answers under way", number(work.answersUnderWay), ""],
  ];
}

function fillTotals(rows) {
  const list = byId("totals");
  rows.forEach(([label, value, small, kind], place) => {
    const box = list.children[place] ?? list.appendChild(
      make("div", {}, make("dt"), make("dd", {}, make("span"), make("small"))));
    setText(box.firstChild, label);
    const [shown, more] = box.lastChild.children;
    setText(shown, value);
    shown.className = kind ?? "";
    setText(more, small);
  });
  while (list.children.length > rows.length) list.lastChild.remove();
}

function fillParts(parts) {
  const list = byId("parts");
  parts.forEach((part, place) => {
    const item = list.children[place] ?? list.appendChild(make("li", {},
      make("span", {class: "mark", "aria-hidden": "true"}), make("b"), make("span")));
    const [mark, name, state] = item.children;
    item.className = part.ok ? "" : "bad";
    setText(mark, part.ok ? "✓" : "✗");
    mark.className = part.ok ? "mark good" : "mark bad";
    setText(name, part.name);
    setText(state, part.state);
  });
  while (list.children.length > parts.length) list.lastChild.remove();
}
