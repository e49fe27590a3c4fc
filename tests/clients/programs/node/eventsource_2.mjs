// npm `eventsource` 2, the major before the rewrite on fetch: its README's "Usage".
import EventSource from 'eventsource-2'
import { listen } from './surface.mjs'

listen(new EventSource(process.env.STREAM_URL))
