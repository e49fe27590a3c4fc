// The immutable state that readers of a project see, put together from its model. Pure.

/** `ProjectState` of seqstream.d.ts. */
export function snapshotOf(model, { connection, userId, isDecoding, isLoadingOlder }) {
  const { list, answers, builds, people, headSeq } = model;
  const reads = people.reads();
  return Object.freeze({
    connection,
    messages: Object.freeze([
      ...list.storedItems(isDecoding),
      ...answers.items(),
      ...list.pendingItems(userId),
    ]),
    builds: Object.freeze(builds.list()),
    typing: Object.freeze(people.typingUsers(userId)),
    online: Object.freeze(people.onlineUsers()),
    headSeq,
    oldestSeq: list.oldestSeq,
    hasOlder: list.floor !== null && list.floor > 0,
    loadingOlder: isLoadingOlder,
    gaps: Object.freeze(list.gaps()),
    readSeq: reads[userId] ?? 0,
    reads,
  });
}
