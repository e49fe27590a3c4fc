// npm `eventsource-parser` on Node's own fetch: its README's "Stream usage". It is a parser, not a
// client: it reads one response, and the program ends with it.
import { EventSourceParserStream } from 'eventsource-parser/stream'
import { surface } from './surface.mjs'

const response = await fetch(process.env.STREAM_URL, { headers: { Accept: 'text/event-stream' } })
const eventStream = response.body
  .pipeThrough(new TextDecoderStream())
  .pipeThrough(new EventSourceParserStream())

for await (const { event, id, data } of eventStream) {
  surface(event ?? 'message', id, data)
}
