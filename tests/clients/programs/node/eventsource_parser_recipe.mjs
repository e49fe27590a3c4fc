// npm `eventsource-parser` with what it leaves to its user: open the stream again after any end,
// after the time that the service asked for, from the last id that was handed on whole. A status
// that says that the request is wrong ends it.
import { EventSourceParserStream } from 'eventsource-parser/stream'
import { surface } from './surface.mjs'

let lastEventId
let retryMs = 3000

async function readOnce() {
  const headers = { Accept: 'text/event-stream' }
  if (lastEventId) headers['Last-Event-ID'] = lastEventId
  const response = await fetch(process.env.STREAM_URL, { headers })
  const { status } = response
  if (status >= 400 && status < 500 && status !== 429) process.exit(1)
  if (!response.ok) throw new Error(`status ${status}`)
  const eventStream = response.body
    .pipeThrough(new TextDecoderStream())
    .pipeThrough(new EventSourceParserStream({ onRetry: (ms) => { retryMs = ms } }))
  for await (const { event, id, data } of eventStream) {
    surface(event ?? 'message', id, data)
    if (id !== undefined) lastEventId = id
  }
}

for (;;) {
  try {
    await readOnce()
  } catch (error) {
    console.error(error.message, error.cause?.code ?? '')
  }
  await new Promise((resolve) => setTimeout(resolve, retryMs))
}
