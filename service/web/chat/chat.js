// The chat page: connects the client to the views. The client (/client/seqstream.js) knows the
// protocol and keeps the state, the views show it; here is only what leads from one to the other.

import {open} from "/client/seqstream.js";

import {Composer} from "./composer.js";
import {ConnectionView, SIGNED_OUT} from "./connection_view.js";
import {coalesced, setText} from "./dom.js";
import {PeopleView} from "./people_view.js";
import {Scroller} from "./scroller.js";
import {Session} from "./session.js";
import {Timeline} from "./timeline.js";

// A person who waits wants to know, and can try again; the client's own default is longer.
const SEND_TIMEOUT_MS = 30_000;
const HISTORY_PAGE = 100;
const LIVE = new Set(["live", "polling"]);
const NOBODY =
  "This page needs a project: open it with a token after the #, or as /chat?project=ID when you are signed in.";

const $ = (id) => document.getElementById(id);

class Chat {
  constructor(session, connection) {
    this._session = session;
    this._connection = connection;
    this._oldest = null;
    this._historyFailed = false;
    this._project = open({
      project: session.project,
      credentials: session.credentials(),
      userId: session.user ?? undefined,
      sendTimeoutMs: SEND_TIMEOUT_MS,
    });
    connection.onRetry(() => this._project.reconnect());
    this._makeViews();
    const render = coalesced(() => this._render());
    this._project.subscribe(render);
    render();
    this._composer.enable();
  }

  _makeViews() {
    const project = this._project;
    this._people = new PeopleView({people: $("people"), typing: $("typing")});
    this._timeline = new Timeline($("log"), {
      // The item shows how it went.
      retry: (id) => project.retry(id).catch(() => {}),
      discard: (id) => {
        project.discard(id);
        this._composer.focus();
      },
      stop: (id) => this._accepted(project.stopAnswer(id)),
      cancel: (id) => this._accepted(project.cancelBuild(id)),
    });
    this._scroller = new Scroller({
      root: $("scroller"),
      content: $("log"),
      button: $("newest"),
      top: $("history"),
      onTop: () => this._loadOlder(),
    });
    this._composer = new Composer({
      form: $("composer"),
      field: $("text"),
      sendButton: $("send"),
      onSend: (text, mode) => {
        this._scroller.toEnd();
        project.send(text, {mode}).catch(() => {});
      },
      onTyping: (typing) => project.setTyping(typing),
    });
  }

  _render() {
    const {state} = this._project;
    const isLive = LIVE.has(state.connection.status);
    const isOlder = state.oldestSeq !== this._oldest;
    this._oldest = state.oldestSeq;
    this._connection.update(state.connection);
    this._session.noticed(state);
    this._people.update(state, this._session.user, isLive);
    // Only news is read out by a screen reader: neither what was missed nor what is older.
    $("log").setAttribute("aria-live", isLive && !isOlder ? "polite" : "off");
    this._scroller.hold(() => this._timeline.show(state, this._session.user));
    $("empty").hidden = !isLive || state.messages.length > 0;
    $("history").hidden = state.messages.length === 0;
    setText($("history"), this._historyText(state));
    if (isOlder) this._scroller.watchTop();
  }

  _historyText({hasOlder}) {
    if (!hasOlder) return "This is the beginning";
    return this._historyFailed ? "Older messages could not be loaded" : "Older messages …";
  }

  async _loadOlder() {
    const {hasOlder, loadingOlder} = this._project.state;
    if (!hasOlder || loadingOlder) return;
    try {
      await this._project.loadOlder(HISTORY_PAGE);
      this._historyFailed = false;
    } catch {
      // Tried again when the reader comes back to the start.
      this._historyFailed = true;
    }
    setText($("history"), this._historyText(this._project.state));
  }

  async _accepted(request) {
    try {
      await request;
      return true;
    } catch (error) {
      this._connection.mention(`That did not work: ${error.message}`);
      return false;
    }
  }
}

/** Phones cover the page with their keyboard: the frame is as high as what is left of it. */
function followViewport(viewport) {
  const fit = () => {
    document.documentElement.style.setProperty("--height", `${viewport.height}px`);
    // Safari moves the page up under the keyboard instead.
    window.scrollTo(0, 0);
  };
  viewport.addEventListener("resize", fit);
  fit();
}

function start() {
  if (window.visualViewport) followViewport(window.visualViewport);
  const connection = new ConnectionView({
    root: $("connection"),
    status: $("status"),
    countdown: $("countdown"),
    notice: $("notice"),
  });
  const session = new Session();
  if (session.ended || session.project === null) {
    connection.update({status: "closed"}, session.ended ? SIGNED_OUT : NOBODY);
    return;
  }
  setText($("project"), session.project);
  document.title = `${session.project} · seqstream chat`;
  session.projectName().then((name) => {
    if (name !== null) setText($("project"), name);
  });
  new Chat(session, connection);
}

start();
