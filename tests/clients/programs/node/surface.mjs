// How the Node programs print what their library gave them. Nothing of a library's behaviour
// belongs here.
import { EVENT_NAMES } from './event_names.mjs'

/** Print one event as the library gave it; writes to a pipe are synchronous in Node. */
export function surface(event, id, data) {
  process.stdout.write(JSON.stringify({ event, id: id ?? null, data }) + '\n')
}

/**
 * Listen on anything that has the form of EventSource. `error` means two things there: the
 * connection's own event, which has no data, and an event of that name from the service.
 */
export function listen(source) {
  for (const name of EVENT_NAMES) {
    source.addEventListener(name, (event) => surface(name, event.lastEventId, event.data))
  }
  source.addEventListener('error', (event) => {
    if (event.data !== undefined) surface('error', event.lastEventId, event.data)
    else console.error('error', event.code ?? event.status ?? '', event.message ?? '')
  })
}
