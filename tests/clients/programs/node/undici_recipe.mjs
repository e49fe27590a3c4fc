// The EventSource of npm `undici`, in a process that something else keeps alive, as a server does:
// while it waits to reconnect, undici's own timer does not, and a program with nothing else ends.
import { EventSource } from 'undici'
import { listen } from './surface.mjs'

setInterval(() => {}, 60_000)
listen(new EventSource(process.env.STREAM_URL))
