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
  #token;
  #endsAt;
  #unknown;
  #isFirst;

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
    this.#endsAt = (claims.exp ?? 0) * 1000;
    this.ended = this.#token !== null && this.#endsAt <= Date.now();
    this.#unknown = new Set();
    this.#isFirst = true;
    if (this.ended) sessionStorage.removeItem(TOKEN);
  }

  /** What the client needs: the cookie, or a function that renews the token. */
  credentials() {
    return this.#token === null ? "cookie" : { token: () => this.#current() };
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

  /** The token to use from now on: one that cannot be renewed is used to its end. */
  async #current() {
    if (!this.#isFirst && !(await this.#renewed()) && this.#endsAt <= Date.now()) {
      throw new Error("the token has ended");
    }
    this.#isFirst = false;
    return { token: this.#token, expiresAt: this.#endsAt };
  }

  /** Get another token by the one there is; false if that is not allowed, or fails. */
  async #renewed() {
    try {
      const response = await fetch(this.#url("/stream-tokens"), {
        method: "POST",
        headers: { ...this.#headers(), "Content-Type": "application/json" },
        body: JSON.stringify({ ttlSeconds: RENEWED_TTL_S }),
      });
      if (!response.ok) return false;
      const { token, expiresAt } = await response.json();
      this.#token = token;
      this.#endsAt = Date.parse(expiresAt);
    } catch {
      return false;
    }
    sessionStorage.setItem(TOKEN, this.#token);
    return true;
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
