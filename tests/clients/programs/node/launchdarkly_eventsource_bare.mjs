// npm `launchdarkly-eventsource`, with no options: its README says that it takes EventSource's
// place, and the defaults of its reconnecting stand under "Configuring backoff and jitter".
import { EventSource } from 'launchdarkly-eventsource'
import { listen } from './surface.mjs'

listen(new EventSource(process.env.STREAM_URL))
