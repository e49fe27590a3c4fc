// Follows one project with the client and tells, one JSON object a line, what it hears and shows.
//
// Argument: {url, project, options, mint?, timers?} as JSON. `mint` has the token minted anew each
// time: {token, ttlSeconds, hideExpiry}. `timers` shortens timers of exactly that many milliseconds.
// Lines on standard input: {send: text, id}, {older: limit}, {state: true}, {close: true}.
// Lines out: {open: cursor}, {event, id, data}, {status}, {receipt}, {failed}, {more}, {state}.
import { createInterface } from "node:readline";
import { open } from "../../service/web/client/seqstream.js";

const { url, project: id, options, mint, timers = {} } = JSON.parse(process.argv[2]);
const print = (object) => process.stdout.write(JSON.stringify(object) + "\n");

async function minted() {
  const response = await fetch(`${mint.url}/v1/projects/${id}/stream-tokens`, {
    method: "POST",
    headers: { Authorization: `Bearer ${mint.token}`, "Content-Type": "application/json" },
    body: JSON.stringify({ ttlSeconds: mint.ttlSeconds }),
  });
  if (!response.ok) throw new Error(`minting: ${response.status}`);
  const { token, expiresAt } = await response.json();
  print({ minted: true });
  return mint.hideExpiry ? { token, expiresAt: Date.now() + 3_600_000 } : { token, expiresAt };
}

const project = open({
  url, project: id, ...options,
  ...(mint && { credentials: { token: minted } }),
  fetch: (href, init) => {
    const { pathname, searchParams } = new URL(href);
    if (pathname.endsWith("/chat/stream")) print({ open: searchParams.get("last_event_id") });
    return fetch(href, init);
  },
  onEvent: print,
  clock: {
    now: () => Date.now(),
    setTimeout: (callback, ms) => setTimeout(callback, timers[ms] ?? ms),
    clearTimeout,
    // Known, so that the delays that `timers` names come about; never a burst of attempts.
    random: Object.keys(timers).length > 0 ? () => 0.2 : Math.random,
  },
});

let told = "";
project.subscribe(() => {
  const { status, transport, reason } = project.state.connection;
  const line = JSON.stringify({ status, transport, reason });
  if (line !== told) process.stdout.write(line + "\n");
  told = line;
});

for await (const line of createInterface({ input: process.stdin })) {
  const command = JSON.parse(line);
  if (command.close) break;
  if (command.state) print({ state: project.state });
  else if (command.older) print({ more: await project.loadOlder(command.older) });
  else {
    project.send(command.send, { clientMsgId: command.id }).then(
      (receipt) => print({ receipt }),
      ({ code }) => print({ failed: command.id, code }),
    );
  }
}
project.close();
process.exit(0);
