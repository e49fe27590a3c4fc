// How the page is connected, in words: what is going on, why, and what the user can do.

import {element, setText} from "./dom.js";

const STATES = {
  connecting: "Connecting …",
  replaying: "Catching up …",
  live: "Live",
  waiting: "Connection lost",
  polling: "Live, by polling",
  refused: "Not connected",
  closed: "Not connected",
};

export const SIGNED_OUT = "Your access has ended. Open this page again with a new token, or sign in again.";
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
  /** `notice` is for what the user must know. */
  constructor({root, status, countdown, notice}) {
    this._root = root;
    this._status = status;
    this._countdown = countdown;
    this._notice = notice;
    this._retryAt = null;
    this._timer = null;
    this._retry = element("button", {type: "button", hidden: true}, "Try now");
    this._shown = {status: "connecting"};
    this._why = "";
    root.append(this._retry);
    this._watchNetwork();
  }

  /** Offer to connect now, by calling `connect`. */
  onRetry(connect) {
    this._retry.addEventListener("click", connect);
  }

  /** Show the client's connection state, and `why` it is over. */
  update(connection, why = REASONS[connection.reason]) {
    if (connection === this._shown) return;
    this._shown = connection;
    const {status} = connection;
    const waits = status === "waiting";
    this._showStatus();
    this._retry.hidden = !(waits || status === "refused");
    this._count(waits ? connection.retryAt : null);
    // `token`: no other could be had. The client goes on trying, in vain unless the user does something.
    const over = status === "refused" || status === "closed" || connection.reason === "token";
    this._why = over ? (why ?? `The service refused: ${connection.reason}.`) : "";
    this._say(this._why);
  }

  /** Show a sentence for a while. */
  mention(sentence) {
    this._say(sentence);
    setTimeout(() => this._say(this._why), MENTION_MS);
  }

  _say(sentence) {
    setText(this._notice, sentence);
    this._notice.hidden = sentence === "";
  }

  _showStatus() {
    const {status} = this._shown;
    const off = this._isOffline && status !== "refused" && status !== "closed";
    this._root.dataset.state = off ? "waiting" : status;
    setText(this._status, off ? NO_NETWORK : STATES[status]);
  }

  // By the events: a device may report no network from the start, and reach a service of its own.
  _watchNetwork() {
    this._isOffline = false;
    for (const name of ["online", "offline"]) {
      addEventListener(name, () => {
        this._isOffline = name === "offline";
        this._showStatus();
      });
    }
  }

  // Counted beside the status and not in it: a screen reader would read out every second.
  _count(retryAt) {
    this._retryAt = retryAt ?? null;
    clearTimeout(this._timer);
    if (this._retryAt === null) {
      setText(this._countdown, "");
      return;
    }
    const left_s = Math.max(0, Math.ceil((this._retryAt - Date.now()) / 1000));
    setText(this._countdown, `next try in ${left_s} s`);
    if (left_s > 0) this._timer = setTimeout(() => this._count(this._retryAt), 1000);
  }
}
