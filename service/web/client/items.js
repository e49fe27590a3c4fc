// What is shown for a message, stored or pending, and what a change makes of one. Pure functions.

import { partsOf } from "./parts.js";

const NO_METADATA = Object.freeze({});

/** A stored message as an item. `isDecoding`: texts come decoded, later, as `record.text`. */
export function itemOf({ data, key, text }, replyCount, isDecoding) {
  const decoding = isDecoding && text === null && !data.redacted;
  const reply = data.metadata?.response_data;
  const parts = partsOf(reply?.parts);
  const regenerates = data.metadata?.regenerates;
  return {
    key,
    seq: data.seq,
    status: "stored",
    messageId: data.messageId,
    clientMsgId: data.client_msg_id,
    userId: data.userId,
    text: decoding ? "" : (text ?? data.content.text),
    type: data.content.type,
    mode: data.content.mode,
    timestamp: data.timestamp,
    parentId: data.parentId ?? null,
    metadata: data.metadata ?? NO_METADATA,
    ...(parts.length > 0 && { parts }),
    ...(typeof reply?.replyTo === "string" && { replyTo: reply.replyTo }),
    ...(typeof regenerates === "string" && { regenerates }),
    ...(data.reactions !== undefined && { reactions: data.reactions }),
    ...(replyCount > 0 && { replyCount }),
    ...(data.editedSeq && { editedSeq: data.editedSeq }),
    ...(data.redacted && { redacted: true }),
    ...(decoding && { decoding: true }),
  };
}

/** A message that is being sent, or was not. */
export function pendingItem({ message, status, error }, userId) {
  return {
    key: message.clientMsgId,
    seq: null,
    status,
    messageId: null,
    clientMsgId: message.clientMsgId,
    userId,
    text: message.text,
    type: "user",
    mode: message.mode,
    timestamp: message.timestamp,
    parentId: message.parentId ?? null,
    metadata: message.metadata ?? NO_METADATA,
    ...(error !== undefined && { error }),
  };
}

/** An answer in progress. */
export function answerItem(answer) {
  return {
    key: answer.messageId,
    seq: null,
    status: "writing",
    messageId: answer.messageId,
    clientMsgId: null,
    userId: answer.userId,
    text: answer.text,
    type: "assistant",
    mode: "plan",
    timestamp: answer.timestamp,
    parentId: null,
    metadata: NO_METADATA,
    replyTo: answer.replyTo,
    ...(answer.regenerates !== null && { regenerates: answer.regenerates }),
    ...(answer.parts.length > 0 && { parts: answer.parts }),
    ...(answer.incomplete && { incomplete: true }),
  };
}

/** The message after a change: `name` is the event's, `change` its data. A new object, or the same. */
export function changed(message, name, change) {
  switch (name) {
    case "message.edited": {
      // A message read after a later edit has that edit.
      if (message.redacted || (message.editedSeq ?? 0) >= change.seq) return message;
      const content = { ...message.content, ...change.content };
      const metadata = change.metadata ?? message.metadata;
      return { ...message, content, metadata, editedSeq: change.seq };
    }
    case "message.redacted": {
      const { reactions, ...rest } = message;
      return {
        ...rest,
        content: { ...message.content, text: "" },
        metadata: { build_id: null, response_data: null },
        redacted: true,
      };
    }
    case "reaction.added":
    case "reaction.removed":
      return reacted(message, change, name === "reaction.added");
    default:
      return message;
  }
}

function reacted(message, { userId, content: { emoji } }, isAdded) {
  const { [emoji]: known, ...rest } = { ...message.reactions };
  // Not an array for a name like "constructor", which every object has.
  const others = Array.isArray(known) ? known.filter((each) => each !== userId) : [];
  const users = isAdded ? [...others, userId] : others;
  return { ...message, reactions: users.length > 0 ? { ...rest, [emoji]: users } : rest };
}
