import type { Item, Project } from "./seqstream.js";

/**
 * A transport for `useChat` (`ai` 6 or newer) over a project that was opened with `open`. What the
 * user sends is posted once, however often it is sent again; an answer is stopped by `stop()`; with
 * `resume: true` a reload goes on in the middle of an answer. The project stays open when the chat
 * goes: close it where it was opened.
 */
export function chatTransport(project: Project, options?: ChatTransportOptions): SeqstreamTransport;

/**
 * A project's messages for `useChat`, answers in progress as far as they are written. Answers that
 * were written again are left out. An item that did not change is the same message.
 */
export function uiMessages(items: readonly Item[]): ChatMessage[];

export interface ChatTransportOptions {
  /**
   * Milliseconds that an answer may be unknown while the project is live; then its stream ends with
   * an error. 60,000 unless given.
   */
  lostAfterMs?: number;
}

/** `ChatTransport` of `ai`. */
export interface SeqstreamTransport {
  readonly resumeStreamIsReplay: boolean;
  sendMessages(options: {
    trigger: "submit-message" | "regenerate-message";
    messages: readonly SentMessage[];
    /** With `regenerate-message` the answer to be written again; the last one unless given. */
    messageId?: string | undefined;
    /** Stops the answer. To leave without that, cancel the stream. */
    abortSignal?: AbortSignal | undefined;
  }): Promise<ReadableStream<AnswerChunk>>;
  reconnectToStream(options?: { abortSignal?: AbortSignal }): Promise<ReadableStream<AnswerChunk> | null>;
}

export interface SentMessage {
  id: string;
  role: "system" | "user" | "assistant";
  parts: readonly { type: string; text?: unknown }[];
}

/** `UIMessage` of `ai`. */
export interface ChatMessage {
  /** The item's `key`. */
  id: string;
  role: "system" | "user" | "assistant";
  metadata: ChatMetadata;
  parts: ChatPart[];
}

export interface ChatMetadata {
  messageId: string | null;
  seq: number | null;
  status: Item["status"];
  userId: string | null;
  timestamp: string;
  /** Of an answer: the `messageId` of what it answers. */
  replyTo?: string;
  ending?: "completed" | "stopped" | "failed";
  reason?: string;
  stoppedBy?: string;
  truncated?: boolean;
  redacted?: boolean;
  /** The message's text is not what was streamed: take it from `uiMessages`. */
  replaced?: boolean;
}

export type ChatPart =
  | { type: "text"; text: string; state: "streaming" | "done" }
  | { type: "reasoning"; id: string; text: string; state: "streaming" | "done" }
  | ToolPart
  | { type: `data-${string}`; id?: string; data: unknown };

/** A call that the assistant made and ran. */
export type ToolPart = {
  type: "dynamic-tool";
  toolName: string;
  toolCallId: string;
  providerExecuted: true;
} & (
  | { state: "input-available"; input: unknown }
  | { state: "output-available"; input: unknown; output: unknown }
  | { state: "output-error"; input: unknown; errorText: string }
);

interface OfCall {
  toolCallId: string;
  dynamic: true;
  providerExecuted: true;
}

/** What is used of `UIMessageChunk` of `ai`. */
export type AnswerChunk =
  | { type: "start"; messageId: string; messageMetadata: ChatMetadata }
  | { type: "text-start" | "text-end" | "reasoning-start" | "reasoning-end"; id: string }
  | { type: "text-delta" | "reasoning-delta"; id: string; delta: string }
  | ({ type: "tool-input-start"; toolName: string } & OfCall)
  | { type: "tool-input-delta"; toolCallId: string; inputTextDelta: string }
  | ({ type: "tool-input-available"; toolName: string; input: unknown } & OfCall)
  | ({ type: "tool-input-error"; toolName: string; input: unknown; errorText: string } & OfCall)
  | ({ type: "tool-output-available"; output: unknown } & OfCall)
  /** Data that is not a data part itself is `data-part`. */
  | { type: `data-${string}`; id?: string; data: unknown }
  | { type: "message-metadata"; messageMetadata: ChatMetadata }
  | { type: "finish"; finishReason: "stop" }
  | { type: "abort"; reason?: string }
  | { type: "error"; errorText: string };
