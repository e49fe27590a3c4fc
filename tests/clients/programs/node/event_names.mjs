// The events that the programs of this folder and of `browser/` listen to. EventSource has no way
// to ask for every event: a program names those that it wants (docs/protocol.md, section 6), and
// `message`, which an event without a name is.
export const EVENT_NAMES = [
  'message.new', 'message.replay', 'message.edited', 'message.redacted', 'reaction.added',
  'reaction.removed', 'build.status', 'message.delta', 'answer.state', 'read.changed',
  'member.changed', 'typing.start', 'typing.stop', 'presence.changed', 'replay.end',
  'stream.open', 'stream.live', 'stream.reset', 'stream.closing', 'stream.refused', 'heartbeat',
  'message',
]
