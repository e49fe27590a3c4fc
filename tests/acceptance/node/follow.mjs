// Follows one stream with the npm package `eventsource` and prints what it dispatches, one JSON
// object a line: {event, id, data}, and {event: "open"} or {event: "error"} of the connection.
// It reconnects by itself, with the Last-Event-ID that it keeps.
import { EventSource } from 'eventsource'

const print = (object) => process.stdout.write(JSON.stringify(object) + '\n')
const source = new EventSource(process.argv[2])
source.onopen = () => print({ event: 'open' })
source.onerror = (error) => print({ event: 'error', code: error.code, state: source.readyState })
const names = [
  'message.new', 'message.replay', 'replay.end', 'stream.open', 'stream.live', 'stream.reset',
  'stream.closing', 'stream.refused',
]
for (const name of names) {
  source.addEventListener(name, ({ lastEventId, data }) =>
    print({ event: name, id: lastEventId, data }))
}
