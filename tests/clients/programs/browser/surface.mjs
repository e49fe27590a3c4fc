// How a page hands on what its library gave it: to the launcher (open_page.py), which prints it.
// Nothing of a library's behaviour belongs here.
import { EVENT_NAMES } from '../node/event_names.mjs'

/** The whole URL of the stream, with the credential in its query. */
export const STREAM_URL = new URL(location.href).searchParams.get('stream')

const BATCH = 50
const queue = []
let posting = false

/** Hand on one event. One request at a time, so that the order stays. */
export function surface(event, id, data) {
  queue.push({ event, id: id ?? null, data })
  if (!posting) post()
}

/** Tell the launcher's stderr something that is no event of the stream. */
export function diagnose(text) {
  fetch('/diagnosed', { method: 'POST', body: text })
}

async function post() {
  posting = true
  while (queue.length > 0) {
    const batch = queue.splice(0, BATCH)
    await fetch('/surfaced', { method: 'POST', body: JSON.stringify(batch) })
  }
  posting = false
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
    if (event instanceof MessageEvent) surface('error', event.lastEventId, event.data)
    else diagnose(`error, state ${source.readyState}`)
  })
}

window.addEventListener('error', (event) => diagnose(`page: ${event.message}`))
window.addEventListener('unhandledrejection', (event) => diagnose(`page: ${event.reason}`))
