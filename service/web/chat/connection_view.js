// How the page is connected, in words: what is going on, why, and what the user can do.

import { element, setText } from "./dom.js";

const STATES = {
  connecting: "Connecting …",
  replaying: "Catching up …",
  live: "Live",
  waiting: "Connection lost",
  polling: "Live, by polling",
  refused: "Not connected",
  closed: "Not connected",
};

export const SIGNED_OUT =
  "Your access has ended. Open this page again with a new token, or sign in again.";
const REASONS = {
  UNAUTHENTICATED: SIGNED_OUT,
  token: SIGNED_OUT,
  token_expired: SIGNED_OUT,
  UNAUTHORIZED_PROJECT_ACCESS: "You have no access to this project.",
  access_revoked: "You have no access to this project any more.",
  FORBIDDEN: "Your token does not allow reading this project.",
  project_deleted: "This project was deleted.",
};

const NO_NETWORK = "Your device has no network";
// How long a sentence about a failed action stays.
const MENTION_MS = 8000;

export class ConnectionView {
  #root;
  #status;
  #countdown;
  #notice;
  #retryAt;
  #timer;
  #retry;
  #shown;
  #why;
  #isOffline;

  /** `notice` is for what the user must know. */
  constructor({ root, status, countdown, notice }) {
    this.#root = root;
    this.#status = status;
    this.#countdown = countdown;
    this.#notice = notice;
    this.#retryAt = null;
    this.#timer = null;
    this.#retry = element("button", { type: "button", hidden: true }, "Try now");
    this.#shown = { status: "connecting" };
    this.#why = "";
    root.append(this.#retry);
    this.#watchNetwork();
  }

  /** Offer to connect now, by calling `connect`. */
  onRetry(connect) {
    this.#retry.addEventListener("click", connect);
  }

  /** Show the client's connection state, and `why` it is over. */
  update(connection, why = REASONS[connection.reason]) {
    if (connection === this.#shown) return;
    this.#shown = connection;
    const { status } = connection;
    const waits = status === "waiting";
    this.#showStatus();
    this.#retry.hidden = !(waits || status === "refused");
    this.#count(waits ? connection.retryAt : null);
    // `token`: no other could be had. The client goes on trying, in vain unless the user does something.
    const over = status === "refused" || status === "closed" || connection.reason === "token";
    this.#why = over ? (why ?? `The service refused: ${connection.reason}.`) : "";
    this.#say(this.#why);
  }

  /** Show a sentence for a while. */
  mention(sentence) {
    this.#say(sentence);
    setTimeout(() => this.#say(this.#why), MENTION_MS);
  }

  #say(sentence) {
    setText(this.#notice, sentence);
    this.#notice.hidden = sentence === "";
  }

  #showStatus() {
    const { status } = this.#shown;
    const off = this.#isOffline && status !== "refused" && status !== "closed";
    this.#root.dataset.state = off ? "waiting" : status;
    setText(this.#status, off ? NO_NETWORK : STATES[status]);
  }

  // By the events: a device may report no network from the start, and reach a service of its own.
  #watchNetwork() {
    this.#isOffline = false;
    for (const name of ["online", "offline"]) {
      addEventListener(name, () => {
        this.#isOffline = name === "offline";
        this.#showStatus();
      });
    }
  }

  // Counted beside the status and not in it: a screen reader would read out every second.
  #count(retryAt) {
    this.#retryAt = retryAt ?? null;
    clearTimeout(this.#timer);
    if (this.#retryAt === null) {
      setText(this.#countdown, "");
      return;
    }
    const left_s = Math.max(0, Math.ceil((this.#retryAt - Date.now()) / 1000));
    setText(this.#countdown, `next try in ${left_s} s`);
    if (left_s > 0) this.#timer = setTimeout(() => this.#count(this.#retryAt), 1000);
  }
}
