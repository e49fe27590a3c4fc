// The chat page: connects the client to the views. The client (/client/seqstream.js) knows the
// protocol and keeps the state, the views show it; here is only what leads from one to the other.

import { open } from "/client/seqstream.js";

import { Composer } from "./composer.js";
import { ConnectionView, SIGNED_OUT } from "./connection_view.js";
import { coalesced, setText } from "./dom.js";
import { HistoryView } from "./history_view.js";
import { PeopleView } from "./people_view.js";
import { Scroller } from "./scroller.js";
import { Session } from "./session.js";
import { Timeline } from "./timeline.js";

// A person who waits wants to know, and can try again; the client's own default is longer.
const SEND_TIMEOUT_MS = 30_000;
const HISTORY_PAGE = 100;
const LIVE = new Set(["live", "polling"]);
const NOBODY =
  "This page needs a project: open it with a token after the #, or as /chat?project=ID when you are signed in.";

const $ = (id) => document.getElementById(id);

class Chat {
  #session;
  #connection;
  #oldest;
  #project;
  #composer;
  #people;
  #history;
  #timeline;
  #scroller;

  constructor(session, connection) {
    this.#session = session;
    this.#connection = connection;
    this.#oldest = null;
    const project = open({
      project: session.project,
      credentials: session.credentials(),
      userId: session.user ?? undefined,
      // By a cookie it is not known whose tabs these are.
      shareTabs: session.tokenUser !== null,
      sendTimeoutMs: SEND_TIMEOUT_MS,
    });
    this.#project = project;
    connection.onRetry(() => project.reconnect());
    this.#makeViews();
    const render = coalesced(() => this.#render());
    project.subscribe(render);
    render();
    this.#composer.enable();
    addEventListener("beforeunload", (event) => {
      // The browser asks whether to leave: what is not sent would be lost.
      if (project.state.messages.some(isUnsent)) event.preventDefault();
    });
  }

  #makeViews() {
    const project = this.#project;
    this.#people = new PeopleView({ people: $("people"), typing: $("typing") });
    this.#history = new HistoryView({
      root: $("history"),
      text: $("history-text"),
      button: $("older"),
      load: () => project.loadOlder(HISTORY_PAGE),
    });
    this.#timeline = new Timeline($("log"), {
      // The item shows how it went. Its buttons are gone, so the focus needs another place.
      retry: (id) => {
        project.retry(id).catch(() => {});
        this.#composer.takeFocus();
      },
      discard: (id) => {
        project.discard(id);
        this.#composer.takeFocus();
      },
      stop: (id) => this.#accepted(project.stopAnswer(id)),
      regenerate: async (id) => {
        const isBegun = await this.#accepted(project.regenerateAnswer(id));
        if (isBegun) this.#composer.takeFocus();
        return isBegun;
      },
      cancel: (id) => this.#accepted(project.cancelBuild(id)),
    });
    this.#scroller = new Scroller({
      root: $("scroller"),
      content: $("log"),
      button: $("newest"),
      top: $("history"),
      onTop: () => this.#history.loadOlder(),
    });
    this.#composer = new Composer({
      form: $("composer"),
      field: $("text"),
      sendButton: $("send"),
      onSend: (text, mode) => {
        this.#scroller.toEnd();
        project.send(text, { mode }).catch(() => {});
      },
      onTyping: (typing) => project.setTyping(typing),
    });
  }

  #render() {
    const { state } = this.#project;
    const isLive = LIVE.has(state.connection.status);
    const isOlder = state.oldestSeq !== this.#oldest;
    this.#oldest = state.oldestSeq;
    this.#connection.update(state.connection);
    this.#session.noticed(state);
    this.#people.update(state, this.#session.user, isLive);
    // Only news is read out by a screen reader: neither what was missed nor what is older.
    $("log").setAttribute("aria-live", isLive && !isOlder ? "polite" : "off");
    this.#scroller.hold(() => {
      this.#history.update(state);
      return this.#timeline.show(state, this.#session.user);
    });
    $("empty").hidden = !isLive || state.messages.length > 0;
    if (isOlder) this.#scroller.watchTop();
  }

  async #accepted(request) {
    try {
      await request;
      return true;
    } catch (error) {
      this.#connection.mention(`That did not work: ${error.message}`);
      return false;
    }
  }
}

function isUnsent({ status }) {
  return status === "sending" || status === "failed";
}

/** Phones cover the page with their keyboard: the frame is as high as what is left of it. */
function followViewport(viewport) {
  const fit = () => {
    // Zoomed in by the reader's fingers, it is a part of the page that is seen.
    if (viewport.scale > 1.01) return;
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
    connection.update({ status: "closed" }, session.ended ? SIGNED_OUT : NOBODY);
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
