// Who reads which project: from the URL's fragment, this tab's storage, or a cookie.
//
// A token in the fragment never reaches a server's log. It is moved to the tab's session storage and
// taken out of the address bar, so that neither a bookmark nor a shared link holds it.

const TOKEN = "seqstream.chat.token";
const USER = "seqstream.chat.user";
// Why a connection is over when it is the token's fault.
const ENDED = new Set(["UNAUTHENTICATED", "token_expired"]);

export class Session {
  #token;
  #unknown;

  constructor() {
    takeFragment();
    addEventListener("hashchange", () => {
      // Another token was put into the address of the open page.
      if (takeFragment()) location.reload();
    });
    this.#token = sessionStorage.getItem(TOKEN);
    const claims = claimsOf(this.#token);
    const asked = new URLSearchParams(location.search).get("project");
    const project = asked ?? claims.projects?.[0] ?? "";
    this.project = /^[\w-]{1,64}$/.test(project) ? project : null;
    /** Null with a cookie until the user has sent something: no other answer says who it is. */
    this.user = claims.sub ?? sessionStorage.getItem(`${USER} ${this.project}`);
    /** Whose token this is; null with a cookie. Only a token says so before anything else does. */
    this.tokenUser = claims.sub ?? null;
    this.ended = this.#token !== null && (claims.exp ?? 0) * 1000 <= Date.now();
    this.#unknown = new Set();
    if (this.ended) sessionStorage.removeItem(TOKEN);
  }

  /** What the client needs. A page cannot prolong its token: who gave it gives the next one. */
  credentials() {
    return this.#token === null ? "cookie" : { token: this.#token };
  }

  /** The project's name; null if it cannot be read. */
  async projectName() {
    try {
      const response = await fetch(this.#url(""), { headers: this.#headers() });
      return response.ok ? ((await response.json()).name ?? null) : null;
    } catch {
      return null;
    }
  }

  /** Look at a snapshot of the client: is the token over, and who is the user? */
  noticed({ connection, messages }) {
    const isOver = connection.status === "refused" || connection.status === "closed";
    if (isOver && ENDED.has(connection.reason)) sessionStorage.removeItem(TOKEN);
    if (this.user !== null) return;
    for (const { key, userId } of messages) {
      if (userId === null) this.#unknown.add(key);
      else if (this.#unknown.has(key)) this.#learn(userId);
    }
  }

  #learn(user) {
    this.user = user;
    this.#unknown.clear();
    sessionStorage.setItem(`${USER} ${this.project}`, user);
  }

  #url(path) {
    return `/v1/projects/${encodeURIComponent(this.project)}${path}`;
  }

  #headers() {
    return this.#token === null ? {} : { Authorization: `Bearer ${this.#token}` };
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
