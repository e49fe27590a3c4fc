// Who types, who is online, who has read how far. Pure: the time is given.

const TYPING_MS = 6000;
const MAX_USERS = 5000;

export class People {
  #typing = new Map(); // userId -> when it ends by itself
  #online = new Set();
  #changes = []; // of presence, since somebody began to ask
  #reads = {};

  typing(userId, isTyping, nowMs) {
    if (!isTyping) return this.#typing.delete(userId);
    if (this.#typing.size < MAX_USERS) this.#typing.set(userId, nowMs + TYPING_MS);
    return true;
  }

  /** Forget who has stopped without a word. Returns whether there was one. */
  expire(nowMs) {
    const ended = [...this.#typing].filter(([, end]) => end <= nowMs);
    for (const [userId] of ended) this.#typing.delete(userId);
    return ended.length > 0;
  }

  /** When `expire` has something to do next; null for never. */
  get nextExpiry() {
    return this.#typing.size === 0 ? null : Math.min(...this.#typing.values());
  }

  presence(userId, isOnline) {
    if (this.#changes.length < MAX_USERS) this.#changes.push([userId, isOnline]);
    if (!isOnline) {
      this.#typing.delete(userId);
      return this.#online.delete(userId);
    }
    if (this.#online.size < MAX_USERS) this.#online.add(userId);
    return true;
  }

  /** Call before asking who is online; give the result to `setOnline` with the answer. */
  watchPresence() {
    this.#changes = [];
    return this.#changes;
  }

  /** Everybody who is online, in order of arrival, and what changed while the answer came. */
  setOnline(userIds, changes) {
    this.#online = new Set(userIds.slice(0, MAX_USERS));
    for (const [userId, isOnline] of [...changes]) this.presence(userId, isOnline);
  }

  read(userId, seq) {
    if ((this.#reads[userId] ?? 0) >= seq) return false;
    if (!(userId in this.#reads) && Object.keys(this.#reads).length >= MAX_USERS) return false;
    this.#reads = { ...this.#reads, [userId]: seq };
    return true;
  }

  removed(userId) {
    this.presence(userId, false);
    const { [userId]: _, ...rest } = this.#reads;
    this.#reads = rest;
  }

  typingUsers(ownId) {
    return [...this.#typing.keys()].filter((userId) => userId !== ownId);
  }

  onlineUsers() {
    return [...this.#online];
  }

  reads() {
    return this.#reads;
  }
}
