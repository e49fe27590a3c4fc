// The console: signing in, which view is open, and asking again and again while it is looked at.

import {Failure, ask, token} from "./api.js";
import {byId, clock, notice, setText} from "./elements.js";
import {clearLegs, legsAfter, showLegs} from "./legs.js";
import {showOverview} from "./overview.js";
import {clearProject, showProject} from "./project.js";

const EVERY_MS = {overview: 2000, project: 1000};
const AWAY_EVERY_MS = 3000;

let view = "";           // "", "overview" or "project"
let projectId = "";
let paused = false;
let timer = 0;
let turn = 0;            // grows with every change of view: what was asked before it is dropped
let answeredAt = null;   // when the service last answered

// Views.

function show(name) {
  view = name;
  turn += 1;
  for (const id of ["overview", "project"]) {
    byId(id).hidden = id !== name;
    byId(id).classList.remove("stale");
  }
  byId("sign-in").hidden = name !== "";
  byId("pause").hidden = byId("leave").hidden = name === "";
  document.title = name === "project" ? `${projectId} – seqstream console` : "seqstream console";
}

function signIn(why = "") {
  show("");
  clearTimeout(timer);
  notice(byId("trouble"), why);
  setState("", "not signed in");
  setText(byId("process"), "");
  byId("token").focus();
}

/** Follow the address: a view, or a token behind the #, which is taken out of it at once. */
function route() {
  const fragment = decodeURIComponent(location.hash.slice(1));
  if (fragment.split(".").length === 3) {
    token.set(fragment);
    history.replaceState(null, "", location.pathname);
  }
  if (!token.get()) return signIn();
  notice(byId("trouble"), "");
  const wanted = /^project=([\w-]{1,64})$/.exec(fragment);
  if (wanted) {
    projectId = wanted[1];
    clearProject(projectId);
    clearLegs();
  }
  const isOther = view !== (wanted ? "project" : "overview");
  show(wanted ? "project" : "overview");
  if (isOther) {
    // What had the focus is hidden now: reading and the keyboard go on where the view begins.
    byId("main").focus({preventScroll: true});
    scrollTo(0, 0);
  }
  return refresh();
}

// Asking.

async function refresh() {
  clearTimeout(timer);
  const asked = turn;
  let next = EVERY_MS[view];
  try {
    await (view === "project" ? refreshProject(asked) : refreshOverview(asked));
    if (asked === turn) answered();
  } catch (error) {
    if (!(error instanceof Failure)) throw error;
    if (asked !== turn) return;
    if (failed(error)) return;
    next = AWAY_EVERY_MS;
  }
  if (asked === turn) schedule(next);
}

function schedule(delay) {
  clearTimeout(timer);
  if (!paused && !document.hidden) timer = setTimeout(refresh, delay);
}

async function refreshOverview(asked) {
  const seen = await ask("/v1/console/overview");
  if (asked === turn) showOverview(seen);
}

async function refreshProject(asked) {
  const path = `/v1/console/projects/${projectId}`;
  // One after the other, on one connection: behind one port several processes may answer.
  const seen = await ask(path);
  const legs = await ask(`${path}/legs?after=${legsAfter()}`);
  if (asked !== turn) return;
  showProject(seen);
  showLegs(legs);
}

function answered() {
  answeredAt = new Date();
  notice(byId("trouble"), "");
  byId(view).classList.remove("stale");
  setState("good", paused ? `paused at ${clock(answeredAt)}` : "live");
}

/** Show what failed; return whether asking again is of no use. */
function failed(error) {
  if (error.kind === "refused") {
    token.clear();
    signIn(error.message);
    return true;
  }
  byId(view).classList.add("stale");
  if (error.kind === "nothing") {
    notice(byId("trouble"), `${projectId || "The overview"}: ${error.message}`);
    setState("bad", "nothing to show");
    return true;
  }
  const since = answeredAt ? `What is shown is from ${clock(answeredAt)}.` : "Nothing was shown yet.";
  if (error.kind === "busy") {
    notice(byId("trouble"), `${error.message}. ${since} Trying again.`);
    setState("warn", "busy");
  } else {
    notice(byId("trouble"), `Not reachable: ${error.message}. ${since} Trying again.`);
    setState("bad", "not reachable");
  }
  return false;
}

function setState(kind, text) {
  byId("state").className = `state ${kind}`;
  setText(byId("state"), text);
}

// What the user does.

byId("sign-in-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token.set(byId("token").value.trim());
  byId("token").value = "";
  route();
});

byId("open-form").addEventListener("submit", (event) => {
  event.preventDefault();
  location.hash = `project=${byId("open-id").value}`;
  byId("open-id").value = "";
});

byId("leave").addEventListener("click", () => {
  token.clear();
  signIn();
});

byId("pause").addEventListener("click", () => {
  paused = !paused;
  byId("pause").setAttribute("aria-pressed", String(paused));
  if (paused) {
    clearTimeout(timer);
    setState("warn", answeredAt ? `paused at ${clock(answeredAt)}` : "paused");
  } else refresh();
});

document.addEventListener("visibilitychange", () => {
  if (!document.hidden && view && !paused) refresh();
});
addEventListener("hashchange", () => {
  // The link that skips to the content is no view.
  if (location.hash !== "#main") route();
});

route();
