// npm `launchdarkly-eventsource` with its README's "Read timeout", longer than the service's
// heartbeat. Without it the timeout of Node's default agent counts: five seconds.
import { EventSource } from 'launchdarkly-eventsource'
import { listen } from './surface.mjs'

listen(new EventSource(process.env.STREAM_URL, { readTimeoutMillis: 45_000 }))
