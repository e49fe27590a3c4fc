// Messages of a project as the AI SDK's `UIMessage`s. Pure.

import { uiParts } from "./answer_chunks.js";

const ENDINGS = { answer: "completed", answer_stopped: "stopped", answer_failed: "failed" };

const made = new WeakMap(); // item -> message: an item that did not change is the same message

/**
 * What `useChat` shows of a project's messages: answers in progress as far as they are written, and
 * no answer that was written again.
 */
export function uiMessages(items) {
  const replaced = new Set(items.map((item) => item.regenerates).filter((id) => id !== undefined));
  return items.filter((item) => !item.incomplete && !replaced.has(item.messageId)).map((item) => {
    if (!made.has(item)) made.set(item, uiMessage(item));
    return made.get(item);
  });
}

/** What a message's metadata says of its item. */
export function metadataOf(item) {
  const { messageId, seq, status, userId, timestamp, replyTo, redacted } = item;
  const { type, reason, stoppedBy, truncated } = item.metadata?.response_data ?? {};
  const ending = Object.hasOwn(ENDINGS, type ?? "") ? ENDINGS[type] : undefined;
  return {
    messageId, seq, status, userId, timestamp,
    ...(typeof replyTo === "string" && { replyTo }),
    ...(ending && { ending }),
    ...(ending && typeof reason === "string" && { reason }),
    ...(ending && typeof stoppedBy === "string" && { stoppedBy }),
    ...(ending && truncated === true && { truncated }),
    ...(redacted && { redacted }),
  };
}

function uiMessage(item) {
  return { id: item.key, role: item.type, metadata: metadataOf(item), parts: partsOf(item) };
}

function partsOf(item) {
  if (item.type !== "assistant") return [{ type: "text", text: item.text, state: "done" }];
  // Without a call whose input is not whole: a chat would go on with that, and hear all of it again.
  return uiParts(item, item.status === "stored").filter(({ state }) => state !== "input-streaming");
}
