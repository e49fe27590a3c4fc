// One project: its tiers, its streams, its unfinished builds and answers.

import {byId, bytes, duration, make, notice, number, setText} from "./elements.js";
import {Table} from "./table.js";
import {drawTiers, stateWord} from "./tiers.js";

let last = null;

const streams = new Table(byId("streams"), "Open streams, those most behind", [
  {label: "User", heads: true, name: true, sort: (row) => row.userId,
    text: (row) => (row.isAdmin ? `${row.userId} (admin)` : row.userId)},
  {label: "State", sort: (row) => row.state, fill: state},
  {label: "Cursor", number: true, sort: (row) => row.cursor, text: (row) => number(row.cursor)},
  {label: "Lag", number: true, sort: (row) => row.lagSeqs, text: (row) => number(row.lagSeqs)},
  {label: "Backlog", number: true, sort: (row) => row.backlogBytes,
    text: (row) => bytes(row.backlogBytes)},
  {label: "Age", number: true, sort: (row) => row.ageSeconds, text: (row) => duration(row.ageSeconds)},
  {label: "Connection", text: (row) => row.connectionId.slice(0, 8)},
], (row) => row.connectionId, ["Lag", true]);

const work = new Table(byId("work"), "Unfinished builds and answers", [
  {label: "What", heads: true, text: (row) => row.what},
  {label: "Id", text: (row) => row.id.slice(0, 8)},
  {label: "User", name: true, text: (row) => row.userId},
  {label: "State", text: (row) => row.state},
  {label: "Worker", name: true, text: (row) => row.worker ?? "–"},
  {label: "Since", text: (row) => row.since},
], (row) => row.id);

function state(cell, row) {
  setText(cell, stateWord(row.state));
  cell.className = row.state === "live" ? "" : row.state === "blocked" ? "bad" : "warn";
}

byId("whole").addEventListener("click", (event) => {
  const pressed = event.currentTarget.getAttribute("aria-pressed") !== "true";
  event.currentTarget.setAttribute("aria-pressed", String(pressed));
  if (last) draw();
});

function draw() {
  drawTiers(last, byId("whole").getAttribute("aria-pressed") === "true");
}

export function clearProject(id) {
  last = null;
  setText(byId("project-title"), id);
  setText(byId("project-owner"), "");
  notice(byId("project-missing"), "");
  byId("tiers").replaceChildren();
  streams.fill([]);
  work.fill([]);
}

export function showProject(seen) {
  last = seen;
  const process = `process ${seen.processId}`;
  // The overview says more of the same process.
  if (!byId("process").textContent.startsWith(process)) setText(byId("process"), process);
  setText(byId("project-owner"), seen.name === null ? "" : `“${seen.name}”, owned by ${seen.ownerId}`);
  notice(byId("project-missing"), seen.missing
    .map((each) => `${each.part}: ${each.why}. Its part is missing here.`).join(" "));
  draw();
  showStreams(seen);
  showWork(seen);
}

function showStreams(seen) {
  const {streamsTotal} = seen;
  setText(byId("streams-note"), streamsTotal > seen.streams.length
    ? `the ${number(seen.streams.length)} most behind of ${number(streamsTotal)}`
    : `${number(streamsTotal)} in this process`);
  const waiting = Object.entries(seen.waiting).filter(([, each]) => each.streams > 0);
  byId("waiting").replaceChildren(...waiting.map(([name, each]) => make("li",
    {class: name === "live" ? "good" : name === "blocked" ? "bad" : "warn"},
    `${number(each.streams)} ${stateWord(name)}`
      + (each.maxLagSeqs ? `, up to ${number(each.maxLagSeqs)} behind` : "")
      + (each.backlogBytes ? `, ${bytes(each.backlogBytes)} waiting` : ""))));
  byId("streams").hidden = streamsTotal === 0;
  streams.fill(seen.streams);
}

function showWork({builds, answers}) {
  const rows = [
    ...(builds ?? []).map((build) => ({
      what: "build", id: build.buildId, userId: build.userId, worker: build.workerId,
      state: [build.status, build.progress === null ? "" : `${Math.round(build.progress)} %`,
        build.step ?? "", build.attempt > 1 ? `attempt ${build.attempt}` : ""].filter(Boolean).join(" · "),
      since: new Date(build.createdAt).toLocaleTimeString("en-GB"),
    })),
    ...(answers ?? []).map((answer) => ({
      what: "answer", id: answer.messageId, userId: answer.userId, worker: answer.workerId,
      state: `replies to ${number(answer.replyToSeq)}`, since: `${duration(answer.ageSeconds)} ago`,
    })),
  ];
  work.fill(rows);
  byId("work").hidden = rows.length === 0;
  const unknown = builds === null || answers === null;
  notice(byId("no-work"), rows.length ? "" : unknown ? "Not known now." : "None.");
}
