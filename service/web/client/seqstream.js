// The client's entry: `open` a project, follow its state, send. Types are in seqstream.d.ts.
//
// It connects the parts and holds no rule of its own: what events do is in model.js, when to
// connect in connection.js, what to fetch in history.js, what to repeat in sending.js.
//
// Seams, for what is not everybody's:
//   `store`       `load()` and `save(snapshot)`; asked before the first connection, told of changes
//   `source`      makes the source of events from a sink: a connection of its own, or another tab's;
//                 a source that joins late needs no replay, since what is missing below its first
//                 message is read from the history like any gap. Sends go by HTTP from every tab
//   `encryption`  `encode(text)` before a post, `decode(message)` after a message is in the list

import { Api } from "./api.js";
import { systemClock } from "./clock.js";
import { Connection } from "./connection.js";
import { Credentials } from "./credentials.js";
import { SeqstreamError } from "./errors.js";
import { History } from "./history.js";
import { ProjectModel } from "./model.js";
import { Keeper } from "./keeper.js";
import { newId, onWake, parsed, report } from "./platform.js";
import { snapshotOf } from "./project_state.js";
import { Outbox } from "./sending.js";
import { clearStored, indexedDbStore } from "./storage.js";
import { SharedSource, canShare } from "./tabs.js";

export { SeqstreamError, clearStored };

const TYPING_MS = 6000; // then the service forgets it by itself
const TYPING_AGAIN_MS = 3000;
const DEFAULT_TAIL = 50;
// What is kept of a project's messages goes with the access to them.
const ACCESS_ENDED = new Set(["UNAUTHORIZED_PROJECT_ACCESS", "access_revoked", "project_deleted"]);

export function open(options) {
  return new Project(options);
}

class Project {
  #options;
  #clock;
  #credentials;
  #api;
  #model;
  #history;
  #outbox;
  #source;
  #keeper;
  #connection = { status: "connecting", transport: "stream" };
  #state = null; // the snapshot, until the next change
  #listeners = new Set();
  #isTold = true;
  #isClosed = false;
  #typingTimer = null;
  #typedAt = -Infinity;
  #unlisten = () => {};

  constructor(options) {
    const { project, clock = systemClock, encryption, after } = options;
    if (!/^[A-Za-z0-9_-]{1,64}$/.test(project)) throw new TypeError("project is not a project's id");
    this.#options = options;
    this.#clock = clock;
    this.#credentials = new Credentials(options.credentials, clock);
    const given = options.fetch ?? globalThis.fetch;
    const base = (options.url ?? globalThis.location.origin).replace(/\/+$/, "");
    // Called on the global object: browsers refuse their own fetch on another one.
    const fetch = (...request) => given.call(globalThis, ...request);
    this.#api = new Api({ base, project, credentials: this.#credentials, fetch, clock });
    this.#model = new ProjectModel({
      max: options.maxMessages,
      isMine: (userId) => this.#userId === null || this.#userId === userId,
      onMessage: (message) => this.#arrived(message),
    });
    if (typeof after === "number") this.#model.list.begin(after);
    this.#history = new History({
      api: this.#api, clock, model: this.#model, onPage: () => this.#changed(),
    });
    const encode = encryption ? (text) => encryption.encode(text) : null;
    const timeoutMs = options.sendTimeoutMs;
    this.#outbox = new Outbox({ api: this.#api, clock, project, encode, timeoutMs }, this.#outboxEvents());
    this.#keeper = new Keeper(this.#storeFor(base), clock, () => this.#kept());
    this.#source = this.#sourceFor(base, {
      onBlock: (event, id, data) => this.#onBlock(event, id, data),
      onStatus: (state) => this.#onStatus(state),
      cursor: () => this.#cursor(),
    });
    void this.#start();
  }

  #storeFor(base) {
    const { store, persist, project } = this.#options;
    if (store !== undefined || !persist || globalThis.indexedDB === undefined) return store ?? null;
    return indexedDbStore({ base, userId: this.#identified("persist"), project });
  }

  #sourceFor(base, sink) {
    const { source, shareTabs, project } = this.#options;
    if (source !== undefined) return source(sink);
    const clock = this.#clock;
    const connect = (to) =>
      new Connection({ api: this.#api, credentials: this.#credentials, clock }, to);
    if (!shareTabs || !canShare()) return connect(sink);
    const userId = this.#identified("shareTabs");
    return new SharedSource({ base, userId, project, connect, clock }, sink);
  }

  /** Whose messages these are. Two users of one browser must not see each other's. */
  #identified(option) {
    if (this.#userId === null) throw new TypeError(`${option} needs userId`);
    return this.#userId;
  }

  get state() {
    this.#state ??= this.#snapshot();
    return this.#state;
  }

  subscribe(listener) {
    const own = () => listener(); // so that one function may be given twice
    this.#listeners.add(own);
    return () => this.#listeners.delete(own);
  }

  send(text, { clientMsgId = newId(), parentId, metadata, mode = "chat" } = {}) {
    const timestamp = new Date(this.#clock.now()).toISOString();
    return this.#outbox.send({ clientMsgId, text, mode, parentId, metadata, timestamp });
  }

  retry(clientMsgId) {
    return this.#outbox.retry(clientMsgId);
  }

  discard(clientMsgId) {
    this.#outbox.discard(clientMsgId);
    this.#model.list.removePending(clientMsgId);
    this.#changed();
  }

  loadOlder(limit = DEFAULT_TAIL) {
    const loading = this.#history.older(limit);
    this.#changed();
    return loading;
  }

  async stopAnswer(messageId) {
    await this.#api.request("POST", `/answers/${encodeURIComponent(messageId)}/stop`);
  }

  async regenerateAnswer(messageId) {
    const path = `/answers/${encodeURIComponent(messageId)}/regenerate`;
    const said = await this.#api.request("POST", path, { body: { client_msg_id: newId() } });
    this.#begun(said.messageId, { replyTo: said.replyTo, regenerates: messageId });
    return said.messageId;
  }

  async cancelBuild(buildId) {
    await this.#api.request("POST", `/builds/${encodeURIComponent(buildId)}/cancel`);
  }

  async edit(seq, text) {
    const { message, metadata } = (await this.#options.encryption?.encode(text)) ?? { message: text };
    const body = { message, metadata, client_msg_id: newId() };
    await this.#api.request("PATCH", `/chat/messages/${seq}`, { body });
  }

  async redact(seq) {
    await this.#api.request("DELETE", `/chat/messages/${seq}`);
  }

  async react(seq, emoji, on = true) {
    const path = `/chat/messages/${seq}/reactions/${encodeURIComponent(emoji)}`;
    await this.#api.request(on ? "PUT" : "DELETE", path);
  }

  async markRead(seq) {
    const said = await this.#api.request("PUT", "/chat/read", { body: { seq } });
    if (this.#userId !== null && this.#model.people.read(this.#userId, said.readSeq)) this.#changed();
  }

  setTyping(typing) {
    const now = this.#clock.now();
    const sinceMs = now - this.#typedAt;
    if (this.#isClosed || (typing ? sinceMs < TYPING_AGAIN_MS : sinceMs >= TYPING_MS)) return;
    this.#typedAt = typing ? now : -Infinity;
    // Nobody waits for it, and the next one makes up for one that was lost.
    this.#api.request("POST", "/chat/typing", { body: { typing } }).catch(() => {});
  }

  reconnect() {
    if (!this.#isClosed) this.#source.reconnect();
  }

  close() {
    if (this.#isClosed) return;
    const unsent = this.#outbox.pending();
    this.#isClosed = true;
    this.#unlisten();
    this.#source.stop();
    this.#history.stop();
    this.#outbox.close();
    this.#clock.clearTimeout(this.#typingTimer);
    this.#keeper.close(this.#kept(unsent));
    this.#onStatus({ status: "closed", transport: this.#connection.transport });
  }

  async #start() {
    const saved = await this.#keeper.load();
    if (this.#isClosed) return;
    if (saved?.project === this.#options.project) {
      // A cursor that was asked for wins over a saved one; what was not sent is sent in any case.
      if (this.#options.after === undefined) this.#restore(saved);
      for (const message of saved.pending) this.#outbox.send(message);
    }
    this.#unlisten = onWake(() => {
      this.#source.wake();
      this.#outbox.wake();
    });
    this.#source.start();
  }

  #restore(saved) {
    this.#model.list.restore(saved);
    for (const message of saved.messages) this.#arrived(message);
    this.#history.fill();
    this.#changed();
  }

  #cursor() {
    const { after, tail = DEFAULT_TAIL } = this.#options;
    const { cursor } = this.#model.list;
    if (cursor !== null) return { after: cursor };
    return after === "live" ? null : { tail };
  }

  #onBlock(event, id, data) {
    if (this.#isClosed) return;
    const value = typeof data === "string" ? parsed(data) : data;
    if (value === undefined) return;
    report(() => this.#options.onEvent?.({ event, id, data: value }));
    // One event that is not as the protocol says must not keep the rest from being shown.
    report(() => this.#apply(event, value));
  }

  #apply(event, data) {
    const isNews = this.#model.apply(event, data, this.#clock.now());
    this.#follow(event, data);
    if (isNews) this.#changed();
  }

  /** What an event asks for besides the model. */
  #follow(event, data) {
    const { list } = this.#model;
    if (event === "stream.open") {
      this.#history.allow();
      if (this.#options.after === "live" && list.cursor === null) list.begin(data.headSeq);
    } else if (event === "stream.live") {
      // Nothing came of the newest ones, so there are none, or they were not sent.
      if (list.floor === null && this.#options.after !== "live" && data.headSeq > 0) this.#newest();
      else if (list.floor === null) list.begin(data.headSeq);
      this.#askWhoIsOnline();
    } else if (event === "stream.reset") this.#newest();
    else if (event === "typing.start") this.#watchTyping();
    this.#history.fill();
  }

  #newest() {
    this.#history.start(Math.max(this.#options.tail ?? DEFAULT_TAIL, 1));
  }

  #askWhoIsOnline() {
    const { people } = this.#model;
    const changes = people.watchPresence();
    this.#api.request("GET", "/presence").then(
      ({ users }) => {
        people.setOnline(users.map((user) => user.userId), changes);
        this.#changed();
      },
      () => {}, // shown as it was; the events go on
    );
  }

  #watchTyping() {
    this.#clock.clearTimeout(this.#typingTimer);
    const { people } = this.#model;
    if (people.nextExpiry === null) return;
    this.#typingTimer = this.#clock.setTimeout(() => {
      if (people.expire(this.#clock.now())) this.#changed();
      this.#watchTyping();
    }, Math.max(people.nextExpiry - this.#clock.now(), 0));
  }

  /** A message came, was changed or was read again. */
  #arrived(message) {
    const isOwn = this.#userId === null || message.userId === this.#userId;
    if (message.client_msg_id && isOwn) this.#outbox.arrived(message);
    if (!this.#options.encryption || message.redacted) return;
    this.#options.encryption.decode(message).catch(() => message.content.text).then((text) => {
      this.#model.list.decoded(message, text);
      this.#changed();
    });
  }

  /** An answer that was asked for is shown before its first piece. */
  #begun(messageId, { replyTo, regenerates, timestamp = new Date(this.#clock.now()).toISOString() }) {
    const { answers, list } = this.#model;
    if (list.hasMessage(messageId)) return;
    answers.expect(messageId, { userId: this.#userId, replyTo, regenerates, timestamp });
    this.#changed();
  }

  #outboxEvents() {
    const { list } = this.#model;
    return {
      sending: (message) => {
        if (list.hasPending(message.clientMsgId)) list.setPending(message.clientMsgId, "sending");
        else list.addPending(message);
        this.#changed();
      },
      sent: (receipt, stored) => {
        list.receipt(receipt, { ...stored, userId: this.#userId });
        const { assistantMessageId, buildId, messageId, timestamp } = receipt;
        if (assistantMessageId && !receipt.duplicate) {
          this.#begun(assistantMessageId, { replyTo: messageId, timestamp });
        }
        if (buildId && !receipt.duplicate) {
          this.#model.builds.status({ userId: this.#userId, status: "queued", content: { buildId }, timestamp });
        }
        this.#changed();
      },
      failed: ({ clientMsgId }, { code, message }) => {
        list.setPending(clientMsgId, "failed", { code, message });
        this.#changed();
      },
      encoded: () => this.#keeper.saveSoon(),
    };
  }

  get #userId() {
    return this.#options.userId ?? this.#credentials.subject;
  }

  #onStatus(state) {
    const { status, reason, retryAt, transport } = this.#connection;
    const isSame = status === state.status && reason === state.reason && retryAt === state.retryAt;
    if (isSame && transport === state.transport) return;
    this.#connection = Object.freeze(state);
    if (ACCESS_ENDED.has(state.reason)) this.#keeper.forget();
    this.#changed();
  }

  /** The state is another one. Listeners are called once for all that comes in one turn. */
  #changed() {
    this.#state = null;
    this.#keeper.saveSoon();
    if (!this.#isTold) return;
    this.#isTold = false;
    queueMicrotask(() => {
      this.#isTold = true;
      for (const listener of [...this.#listeners]) report(listener);
    });
  }

  #snapshot() {
    return snapshotOf(this.#model, {
      connection: this.#connection,
      userId: this.#userId,
      isDecoding: Boolean(this.#options.encryption),
      isLoadingOlder: this.#history.isLoadingOlder,
    });
  }

  #kept(pending = this.#outbox.pending()) {
    return { project: this.#options.project, ...this.#model.list.save(), pending };
  }
}
