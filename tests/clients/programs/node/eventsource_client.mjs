// npm `eventsource-client`: its README's "Usage (async iterator)", which hands on every event,
// whatever its name, and reconnects by itself.
import { createEventSource } from 'eventsource-client'
import { surface } from './surface.mjs'

const es = createEventSource({ url: process.env.STREAM_URL })
for await (const { data, event, id } of es) {
  surface(event ?? 'message', id, data)
}
