/**
 * Types of the seqstream client: `open` one project, `subscribe` to its state, `send`.
 *
 * The state is one immutable snapshot; every change makes a new one, so `state` and `subscribe` fit
 * React's `useSyncExternalStore` as they are. What the service promises is in docs/protocol.md.
 */

/** Open a project: connect, resume, fill gaps, send. Runs until `close()`. */
export function open(options: ProjectOptions): Project;

/** Remove what `persist` keeps in this browser, of all users and projects: for a sign-out. */
export function clearStored(): Promise<void>;

/** A refusal of the service, or a failure on the way (`status` 0). */
export class SeqstreamError extends Error {
  /** HTTP status; 0 when no response came. */
  readonly status: number;
  /**
   * The service's code, else `NETWORK`, `TIMEOUT`, `TOKEN`, `ENCODING`, `OUTBOX_FULL`, `CLOSED`
   * or `DISCARDED`.
   */
  readonly code: string;
  readonly details?: unknown;
  readonly requestId?: string;
}

export interface ProjectOptions {
  project: string;
  /** Base URL of the service; the page's own origin unless given (required in Node). */
  url?: string;
  /** How the caller is known; the browser's cookie unless given. */
  credentials?: Credentials;
  /** Seq after which to start: 0 for the beginning, `"live"` for new messages only. Wins over `tail`. */
  after?: number | "live";
  /** Newest messages to show at first, 1 to 200; 50 unless given. */
  tail?: number;
  /** Whose optimistic messages these are; a token's `sub` unless given. */
  userId?: string;
  /** Messages kept in memory, the oldest dropped first (`hasOlder` is then true); 5000 unless given. */
  maxMessages?: number;
  /** Milliseconds after which an unsent message counts as failed; 120,000 unless given. */
  sendTimeoutMs?: number;
  fetch?: typeof fetch;
  /** Called with every event of the stream as it arrives, before the state shows it. */
  onEvent?(event: StreamEvent): void;
  /**
   * Keep the newest messages and unsent ones in IndexedDB, so that a reload resumes. Needs `userId`
   * (or a token with one). Call `clearStored()` at a sign-out.
   */
  persist?: boolean;
  /**
   * One stream for all tabs of the browser that have this project open. Needs `userId` (or a token
   * with one), and a secure context: elsewhere each tab has a stream of its own.
   */
  shareTabs?: boolean;
  encryption?: Encryption;
  /** Where snapshots are kept, instead of what `persist` chooses. */
  store?: Store;
  /** Where events come from, instead of a connection of one's own (and of `shareTabs`). */
  source?: SourceFactory;
  /** For tests: time, timers and chance. */
  clock?: Clock;
}

export type Token = string | { token: string; expiresAt?: string | number | Date };

export type Credentials =
  | "cookie"
  /** Called when the cookie is refused or has ended; must have a new one set. */
  | { renewCookie(): void | Promise<void> }
  /** With a function the token is renewed before it ends; `via: "query"` is for the stream alone. */
  | { token: string | (() => Token | Promise<Token>); via?: "header" | "query" };

export interface Project {
  /** The snapshot of now; another object after every change. */
  readonly state: ProjectState;
  /** Call `listener` after changes, once for all that came together; returns how to stop. */
  subscribe(listener: () => void): () => void;
  /**
   * Show a message at once and post it, in the order of the calls; resolves at the receipt, or, when
   * that is lost, once the message arrives by the stream. Rejects with a `SeqstreamError` when it was
   * refused or not sent in time; the item then has status `failed`, so the promise may be ignored.
   */
  send(text: string, options?: SendOptions): Promise<Receipt>;
  /** Send a failed message again, under its `client_msg_id`: never twice in the log. */
  retry(clientMsgId: string): Promise<Receipt>;
  /** Forget a message that was not sent. One on its way may still arrive. */
  discard(clientMsgId: string): void;
  /** Load older messages; resolves with whether there are more still. */
  loadOlder(limit?: number): Promise<boolean>;
  /** End an answer that is being written; what was written so far stays. */
  stopAnswer(messageId: string): Promise<void>;
  /** Have the question of an answer answered again; resolves with the new answer's `messageId`. */
  regenerateAnswer(messageId: string): Promise<string>;
  cancelBuild(buildId: string): Promise<void>;
  /** Change the text of one's own message. */
  edit(seq: number, text: string): Promise<void>;
  redact(seq: number): Promise<void>;
  react(seq: number, emoji: string, on?: boolean): Promise<void>;
  /** Tell how far the user has read; never goes backwards. */
  markRead(seq: number): Promise<void>;
  /** Call on every key press with true: sent at most every 3 s. */
  setTyping(typing: boolean): void;
  /** Try to connect now: after `refused`, or instead of waiting. */
  reconnect(): void;
  /** End everything. Unsent messages are rejected with `CLOSED`; a store keeps them. */
  close(): void;
}

export interface ProjectState {
  readonly connection: ConnectionState;
  /** Stored messages by seq, then answers in progress, then what is being sent. */
  readonly messages: readonly Item[];
  /** In the order in which they became known. */
  readonly builds: readonly Build[];
  /** Users who are typing, without oneself. */
  readonly typing: readonly string[];
  /** Users with a stream open. */
  readonly online: readonly string[];
  /** Highest seq known to be committed; 0 for none. */
  readonly headSeq: number;
  /** Lowest seq shown; null while there is none. */
  readonly oldestSeq: number | null;
  /** Whether `loadOlder` has something to load. */
  readonly hasOlder: boolean;
  readonly loadingOlder: boolean;
  /** Ranges that are being fetched from the history, bounds exclusive. */
  readonly gaps: readonly { after: number; before: number }[];
  /** How far the user has read; 0 while not known. */
  readonly readSeq: number;
  /** How far each user has read, as far as it was told. */
  readonly reads: Readonly<Record<string, number>>;
}

export type ConnectionStatus =
  | "connecting" /** a request is under way */
  | "replaying" /** the stream is open and sends what was missed */
  | "live"
  | "waiting" /** until `retryAt` */
  | "polling" /** long polling, since no stream comes through */
  | "refused" /** by the service; `reason` says why; it is not tried again by itself */
  | "closed"; /** by `close()`, or by the service for good: see `reason` */

export interface ConnectionState {
  readonly status: ConnectionStatus;
  /** A code of the service (`UNAUTHENTICATED`, `token_expired` …), `network` or `watchdog`. */
  readonly reason?: string;
  /** Milliseconds since 1970. */
  readonly retryAt?: number;
  readonly transport: "stream" | "poll";
}

export type ItemStatus = "stored" | "sending" | "failed" | "writing";

/** One line of the chat. A changed item is another object with the same key. */
export interface Item {
  /** Stays the same from the optimistic message to the stored one, from the first piece to the answer. */
  readonly key: string;
  /** Null until stored. */
  readonly seq: number | null;
  readonly status: ItemStatus;
  readonly messageId: string | null;
  readonly clientMsgId: string | null;
  /** Null for one's own message while it is not known whose it is. */
  readonly userId: string | null;
  readonly text: string;
  readonly type: "user" | "assistant" | "system";
  readonly mode: "chat" | "plan" | "build";
  /** RFC 3339; of an unstored item the time of this machine. */
  readonly timestamp: string;
  readonly parentId: string | null;
  readonly metadata: Metadata;
  /** Of an answer: pieces that are not text, in order, joined as docs/protocol.md §5 says. */
  readonly parts?: readonly Part[];
  /** Of an answer: the `messageId` of what it answers. */
  readonly replyTo?: string | null;
  /** Of an answer: the `messageId` of the one that it was written in place of. */
  readonly regenerates?: string;
  /** Of an answer in progress: pieces before this text are missing so far. */
  readonly incomplete?: boolean;
  readonly reactions?: Readonly<Record<string, readonly string[]>>;
  readonly replyCount?: number;
  readonly editedSeq?: number;
  readonly redacted?: boolean;
  /** The text is still being decoded (`encryption`), and empty so far. */
  readonly decoding?: boolean;
  /** Why it failed. */
  readonly error?: { readonly code: string; readonly message: string };
}

export type Metadata = Readonly<Record<string, unknown>>;

/** The same while an answer is written and in its message. */
export interface Part {
  readonly kind: "reasoning" | "tool" | "data";
  /** How many Unicode code points of the answer's text come before it. */
  readonly offset: number;
  /** Any JSON: of `reasoning` `{text}`; of a `tool` `{id, name, text}`, or `{id, output}`. */
  readonly data: unknown;
}

export interface Build {
  readonly buildId: string;
  readonly versionId: string | null;
  readonly userId: string | null;
  readonly status: "queued" | "in_progress" | "completed" | "failed";
  readonly attempt: number;
  /** Per cent. */
  readonly progress: number | null;
  readonly step: string | null;
  readonly message: string | null;
  readonly timestamp: string | null;
}

export interface SendOptions {
  clientMsgId?: string;
  parentId?: string;
  metadata?: Record<string, unknown>;
  /** `chat` unless given; `plan` has the assistant answer, `build` queues a build. */
  mode?: "chat" | "plan" | "build";
}

export interface Receipt {
  readonly clientMsgId: string;
  readonly seq: number;
  readonly messageId: string;
  readonly timestamp: string;
  /** It was in the log before. */
  readonly duplicate: boolean;
  /** Mode `plan`: the answer's id. */
  readonly assistantMessageId?: string;
  /** Mode `build`. */
  readonly buildId?: string;
}

/** An event of the stream; `data` is as in docs/protocol.md §6. */
export interface StreamEvent {
  readonly event: string;
  readonly id: string;
  readonly data: unknown;
}

/** A message as the service sends it (docs/protocol.md §6). */
export interface Message {
  seq: number;
  messageId: string;
  client_msg_id: string | null;
  projectId: string;
  userId: string;
  content: { text: string; type: Item["type"]; mode: Item["mode"]; actor_type: string };
  timestamp: string;
  parentId?: string;
  metadata: Record<string, unknown>;
  editedSeq?: number;
  redacted?: boolean;
  reactions?: Record<string, string[]>;
  replyCount?: number;
}

/** Hides texts from the service: what is posted, and what is shown. */
export interface Encryption {
  /** What is posted for a text. `metadata` is added to the message's. */
  encode(text: string): Promise<{ message: string; metadata?: Record<string, unknown> }>;
  /** What is shown for a message. When it rejects, the message is shown as it came. */
  decode(message: Message): Promise<string>;
}

/** What a reload needs to go on. */
export interface Snapshot {
  project: string;
  /** Stored messages by seq, as the service sent them: undecoded. */
  messages: Message[];
  /** Everything above `floor` up to `cursor` was received, but for `gaps`; both null at the start. */
  floor: number | null;
  cursor: number | null;
  gaps: { after: number; before: number }[];
  pending: PendingMessage[];
}

export interface PendingMessage {
  clientMsgId: string;
  text: string;
  mode: "chat" | "plan" | "build";
  parentId?: string;
  metadata?: Record<string, unknown>;
  timestamp: string;
  /** What `Encryption.encode` made of it: every attempt must post the same. */
  encoded?: { message: string; metadata?: Record<string, unknown> };
}

/** Keeps one project's snapshot. A failure of it is not the client's: it goes on without. */
export interface Store {
  load(): Promise<Snapshot | null>;
  /** Called at most about once a second, and at `close()`. */
  save(snapshot: Snapshot): Promise<void>;
  /** Called when the user has lost access: nothing of the project may stay. */
  clear?(): Promise<void>;
}

/** Makes a source of events for a project: a connection, or a tab that has one. */
export type SourceFactory = (sink: SourceSink) => Source;

export interface Source {
  start(): void;
  /** End for good; nothing reaches the sink afterwards. */
  stop(): void;
  /** The page became visible, or the network came back: check now. */
  wake(): void;
  /** Connect now, whatever the state. */
  reconnect(): void;
}

export interface SourceSink {
  /**
   * One event of the stream, in the order of the wire; `data` as it came (JSON), or an object.
   * `history.page` is not the service's: it has what long polling fetched.
   */
  onBlock(event: string, id: string, data: string | object): void;
  onStatus(state: ConnectionState): void;
  /** Where to open the stream next: a seq, or the newest so many, or live from head. */
  cursor(): { after: number } | { tail: number } | null;
}

export interface Clock {
  /** Milliseconds since 1970. */
  now(): number;
  setTimeout(callback: () => void, ms: number): unknown;
  clearTimeout(timer: unknown): void;
  /** At least 0, less than 1. */
  random(): number;
}
