// The EventSource of npm `undici` (Node 20 has none of its own): docs/api/EventSource.md,
// "Instantiating EventSource".
import { EventSource } from 'undici'
import { listen } from './surface.mjs'

listen(new EventSource(process.env.STREAM_URL))
