// npm `eventsource`, the newest major for Node 20: its README's "Usage".
import { EventSource } from 'eventsource'
import { listen } from './surface.mjs'

listen(new EventSource(process.env.STREAM_URL))
