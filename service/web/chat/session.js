// Who reads which project: from the URL's fragment, this tab's storage, or a cookie.
//
// A token in the fragment never reaches a server's log. It is moved to the tab's session storage and
// taken out of the address bar, so that neither a bookmark nor a shared link holds it.

const TOKEN = "seqstream.chat.token";
const USER = "seqstream.chat.user";
const RENEWED_TTL_S = 3600;
// Why a connection is over when it is the token's fault.
const ENDED = new Set(["UNAUTHENTICATED", "token_expired"]);

export class Session {
  constructor() {
    takeFragment();
    addEventListener("hashchange", () => {
      // Another token was put into the address of the open page.
      if (takeFragment()) location.reload();
    });
    this._token = sessionStorage.getItem(TOKEN);
    const claims = claimsOf(this._token);
    const asked = new URLSearchParams(location.search).get("project");
    const project = asked ?? claims.projects?.[0] ?? "";
    this.project = /^[\w-]{1,64}$/.test(project) ? project : null;
    /** Null with a cookie until the user has sent something: no other answer says who it is. */
    this.user = claims.sub ?? sessionStorage.getItem(`${USER} ${this.project}`);
    this._endsAt = (claims.exp ?? 0) * 1000;
    this.ended = this._token !== null && this._endsAt <= Date.now();
    this._unknown = new Set();
    this._isFirst = true;
    if (this.ended) sessionStorage.removeItem(TOKEN);
  }

  /** What the client needs: the cookie, or a function that renews the token. */
  credentials() {
    return this._token === null ? "cookie" : {token: () => this._current()};
  }

  /** The project's name; null if it cannot be read. */
  async projectName() {
    try {
      const response = await fetch(this._url(""), {headers: this._headers()});
      return response.ok ? ((await response.json()).name ?? null) : null;
    } catch {
      return null;
    }
  }

  /** Look at a snapshot of the client: is the token over, and who is the user? */
  noticed({connection, messages}) {
    const isOver = connection.status === "refused" || connection.status === "closed";
    if (isOver && ENDED.has(connection.reason)) sessionStorage.removeItem(TOKEN);
    if (this.user !== null) return;
    for (const {key, userId} of messages) {
      if (userId === null) this._unknown.add(key);
      else if (this._unknown.has(key)) this._learn(userId);
    }
  }

  _learn(user) {
    this.user = user;
    this._unknown.clear();
    sessionStorage.setItem(`${USER} ${this.project}`, user);
  }

  /** The token to use from now on: one that cannot be renewed is used to its end. */
  async _current() {
    if (!this._isFirst && !(await this._renewed()) && this._endsAt <= Date.now()) {
      throw new Error("the token has ended");
    }
    this._isFirst = false;
    return {token: this._token, expiresAt: this._endsAt};
  }

  /** Get another token by the one there is; false if that is not allowed, or fails. */
  async _renewed() {
    try {
      const response = await fetch(this._url("/stream-tokens"), {
        method: "POST",
        headers: {...this._headers(), "Content-Type": "application/json"},
        body: JSON.stringify({ttlSeconds: RENEWED_TTL_S}),
      });
      if (!response.ok) return false;
      const {token, expiresAt} = await response.json();
      this._token = token;
      this._endsAt = Date.parse(expiresAt);
    } catch {
      return false;
    }
    sessionStorage.setItem(TOKEN, this._token);
    return true;
  }

  _url(path) {
    return `/v1/projects/${encodeURIComponent(this.project)}${path}`;
  }

  _headers() {
    return this._token === null ? {} : {Authorization: `Bearer ${this._token}`};
  }
}

/** Move a token from the address to the storage; false if there was none. */
function takeFragment() {
  const fragment = location.hash.slice(1);
  if (!/^[\w-]+\.[\w-]+\.[\w-]+$/.test(fragment)) return false;
  sessionStorage.setItem(TOKEN, fragment);
  history.replaceState(null, "", location.pathname + location.search);
  return true;
}

/** The claims of a token, unverified: they only decide what to show. */
function claimsOf(token) {
  try {
    const part = token.split(".")[1].replace(/-/g, "+").replace(/_/g, "/");
    const bytes = Uint8Array.from(atob(part), (character) => character.charCodeAt(0));
    return JSON.parse(new TextDecoder().decode(bytes)) ?? {};
  } catch {
    return {};
  }
}
