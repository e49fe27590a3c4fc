// The life of a connection on a clock of the test's: back-off, watchdog, renewals, refusals, polling.
import assert from "node:assert/strict";
import test from "node:test";
import { open } from "../../service/web/client/seqstream.js";
import { backoffMs, retryAfterMs } from "../../service/web/client/backoff.js";
import { FakeClock, settle } from "./fake_clock.mjs";
import { FakeService, history, json, message } from "./fake_service.mjs";

function opened(context, { service = new FakeService(), clock = new FakeClock(), ...options } = {}) {
  const project = open({ project: "p", url: "http://s", fetch: service.fetch, clock, after: 0, ...options });
  context.after(() => project.close());
  return { service, clock, project };
}
const status = (project) => project.state.connection.status;
const seqs = (project) => project.state.messages.map((item) => item.seq);
const opening = (service) => service.to("/chat/stream").length;

function jwt(claims) {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");
  return `${part({ alg: "HS256" })}.${part(claims)}.x`;
}

test("the first opening asks for the newest, and becomes live", async (t) => {
  const { service, clock, project } = opened(t, { after: undefined, tail: 20 });
  await clock.advance();
  assert.deepEqual(service.stream.request.query, { tail: "20" });
  assert.equal(status(project), "connecting");
  service.stream.open({ head: 2, replay: [message(1), message(2)] });
  await clock.advance();
  assert.equal(status(project), "live");
  assert.deepEqual(seqs(project), [1, 2]);
});

test("a stream that broke is opened again after the last message", async (t) => {
  const { service, clock, project } = opened(t);
  await clock.advance();
  service.stream.open({ cursor: 0 }).message(message(1)).message(message(2));
  await clock.advance();
  service.stream.break();
  await clock.advance();
  assert.equal(status(project), "waiting");
  assert.equal(project.state.connection.retryAt, clock.now() + 500);
  await clock.advance(500);
  assert.equal(service.stream.request.query.last_event_id, "2");
});

test("attempts that fail come at growing distances, up to 30 s, and start anew after a success", async (t) => {
  const service = new FakeService().on("GET", "/chat/stream", () => {
    throw new TypeError("refused");
  });
  const { clock, project } = opened(t, { service });
  const waits = [];
  for (let attempt = 0; attempt < 8; attempt++) {
    await clock.advance();
    const wait = project.state.connection.retryAt - clock.now();
    waits.push(wait);
    await clock.advance(wait);
  }
  assert.deepEqual(waits, [500, 1000, 2000, 4000, 8000, 15000, 15000, 15000]);
  service.on("GET", "/chat/stream", (_, stream) => stream().response);
  await clock.advance(15000);
  service.stream.open();
  await clock.advance();
  service.stream.end();
  await clock.advance();
  assert.equal(project.state.connection.retryAt - clock.now(), 500);
});

test("the service's retry is the base of the back-off", async (t) => {
  const { service, clock, project } = opened(t);
  await clock.advance();
  service.stream.open({ retry: 4000 });
  await clock.advance();
  service.stream.break();
  await clock.advance();
  assert.equal(project.state.connection.retryAt - clock.now(), 2000);
});

test("jitter is full: anything from nothing to the bound, on top of what was told", () => {
  const at = (random, more = {}) => backoffMs(3, { random: () => random, ...more });
  assert.deepEqual([at(0), at(0.5), at(0.999)], [0, 4000, 7992]);
  assert.deepEqual([at(0, { toldMs: 5000 }), at(0.5, { toldMs: 5000 })], [5000, 9000]);
});

test("Retry-After is read as seconds or as a date, and bounded", () => {
  const now = Date.parse("2030-01-01T00:00:00Z");
  const values = ["7", "Tue, 01 Jan 2030 00:00:09 GMT", "-1", "soon", null, "99999999"];
  assert.deepEqual(values.map((value) => retryAfterMs(value, now)), [7000, 9000, 0, 0, 0, 300000]);
});

test("45 s without a byte: the stream is given up and opened again at once", async (t) => {
  const { service, clock } = opened(t);
  await clock.advance();
  service.stream.open();
  await clock.advance(40_000);
  service.stream.send("heartbeat", { headSeq: 0 });
  await clock.advance(44_900);
  assert.equal(opening(service), 1);
  await clock.advance(200);
  assert.equal(opening(service), 2);
});

/** A project whose connection the test may wake, as a page that becomes visible does. */
async function wakeable(context) {
  const { Connection } = await import("../../service/web/client/connection.js");
  const { Api } = await import("../../service/web/client/api.js");
  const { Credentials } = await import("../../service/web/client/credentials.js");
  const service = new FakeService();
  const clock = new FakeClock();
  const credentials = new Credentials("cookie", clock);
  const api = new Api({ base: "http://s", project: "p", credentials, fetch: service.fetch, clock });
  let connection;
  const source = (sink) => (connection = new Connection({ api, credentials, clock }, sink));
  const { project } = opened(context, { service, clock, source });
  await clock.advance();
  return { service, clock, project, connection };
}

test("a page that comes back checks its stream: a stale one is replaced, a fresh one kept", async (t) => {
  const { service, clock, connection } = await wakeable(t);
  service.stream.open();
  await clock.advance(15_000);
  connection.wake();
  await clock.advance();
  assert.equal(opening(service), 1);
  await clock.advance(10_000);
  connection.wake();
  await clock.advance();
  assert.equal(opening(service), 2);
});

test("a page that comes back while it waits tries at once", async (t) => {
  const { service, clock, connection } = await wakeable(t);
  service.stream.open().break();
  await clock.advance();
  connection.wake();
  await clock.advance();
  assert.equal(opening(service), 2);
});

test("a refusal in band is waited for, and nothing shortens it", async (t) => {
  const { service, clock, project, connection } = await wakeable(t);
  service.stream.send("stream.refused", { code: "RATE_LIMITED", retryAfterMs: 5000 }, { retry: 5000 }).end();
  await clock.advance();
  assert.deepEqual([status(project), project.state.connection.reason], ["waiting", "RATE_LIMITED"]);
  await clock.advance(4900);
  connection.wake();
  await clock.advance(100);
  assert.equal(opening(service), 1);
  connection.wake();
  await clock.advance();
  assert.equal(opening(service), 2);
});

test("a closing that says to reconnect: after exactly its retry", async (t) => {
  const { service, clock, project } = opened(t);
  await clock.advance();
  service.stream.open();
  service.stream.send("stream.closing", { reason: "shutdown", reconnect: true }, { retry: 1234 }).end();
  await clock.advance();
  assert.deepEqual([project.state.connection.reason, project.state.connection.retryAt - clock.now()], ["shutdown", 1234]);
  await clock.advance(1234);
  assert.equal(opening(service), 2);
});

for (const reason of ["access_revoked", "project_deleted", "token_expired"]) {
  test(`a closing for good is final: ${reason}`, async (t) => {
    const { service, clock, project } = opened(t);
    await clock.advance();
    service.stream.open().send("stream.closing", { reason, reconnect: false }).end();
    await clock.advance(600_000);
    assert.deepEqual([status(project), project.state.connection.reason], ["closed", reason]);
    assert.equal(opening(service), 1);
    project.reconnect();
    await clock.advance();
    assert.equal(opening(service), 2);
  });
}

for (const [code, body] of [[403, { code: "UNAUTHORIZED_PROJECT_ACCESS" }], [401, { code: "UNAUTHENTICATED" }], [400, {}]]) {
  test(`an HTTP ${code} is not tried again`, async (t) => {
    const service = new FakeService().on("GET", "/chat/stream", () => [code, { error: "no", ...body }]);
    const { clock, project } = opened(t, { service });
    await clock.advance(600_000);
    assert.deepEqual([status(project), project.state.connection.reason], ["refused", body.code ?? "HTTP_400"]);
    assert.equal(opening(service), 1);
  });
}

for (const [what, response] of [
  ["a 503 with Retry-After", () => json(503, { code: "STORE_UNAVAILABLE" }, { "Retry-After": "7" })],
  ["a page of a login portal", () => new Response("<html>", { headers: { "Content-Type": "text/html" } })],
]) {
  test(`tried again later: ${what}`, async (t) => {
    const service = new FakeService().on("GET", "/chat/stream", response);
    const { clock, project } = opened(t, { service });
    await clock.advance();
    assert.equal(status(project), "waiting");
    await clock.advance(7500);
    assert.ok(opening(service) >= 2);
  });
}

test("a token is renewed before it ends, and the stream goes on with the new one", async (t) => {
  const clock = new FakeClock();
  let given = 0;
  const token = () => ({ token: `t${++given}`, expiresAt: clock.now() + 100_000 });
  const { service, project } = opened(t, { clock, credentials: { token } });
  await clock.advance();
  assert.equal(service.stream.request.headers.Authorization, "Bearer t1");
  service.stream.open().message(message(1));
  for (let second = 0; second < 80; second += 10) {
    await clock.advance(10_000);
    service.stream.send("heartbeat", { headSeq: 1 });
  }
  await clock.advance();
  assert.equal(service.stream.request.headers.Authorization, "Bearer t2");
  assert.equal(service.stream.request.query.last_event_id, "1");
  assert.deepEqual(seqs(project), [1]);
});

test("a token whose time to be renewed is a fraction of a millisecond is renewed", async (t) => {
  const clock = new FakeClock();
  let given = 0;
  const token = () => ({ token: `t${++given}`, expiresAt: clock.now() + 8001 });
  const { service } = opened(t, { clock, credentials: { token } });
  await clock.advance();
  service.stream.open();
  await clock.advance(6500);
  assert.deepEqual([given, opening(service)], [2, 2]);
});

test("a token's own exp and sub are read when nothing else is said", async (t) => {
  const clock = new FakeClock();
  let given = 0;
  const token = () => jwt({ sub: "ann", exp: clock.now() / 1000 + 10, n: ++given });
  const { service, project } = opened(t, { clock, credentials: { token, via: "query" } });
  await clock.advance();
  assert.ok(service.stream.request.query.token.length > 20);
  assert.equal(service.stream.request.headers.Authorization, undefined);
  service.stream.open();
  await clock.advance(8000);
  assert.equal(given, 2);
  assert.equal(opening(service), 2);
  project.send("x").catch(() => {});
  assert.equal(project.state.messages[0].userId, "ann");
});

test("a function that gives the same token again is not asked in a circle", async (t) => {
  const clock = new FakeClock();
  let given = 0;
  const same = jwt({ exp: clock.now() / 1000 + 10 });
  const { service } = opened(t, { clock, credentials: { token: () => (given++, same) } });
  await clock.advance();
  service.stream.open();
  await clock.advance(9900);
  assert.deepEqual([given, opening(service)], [2, 1]);
});

test("token_expired: the token is renewed, and the stream resumes at once", async (t) => {
  let given = 0;
  const { service, clock, project } = opened(t, { credentials: { token: () => `t${++given}` } });
  await clock.advance();
  service.stream.open().message(message(1));
  service.stream.send("stream.closing", { reason: "token_expired", reconnect: false }).end();
  await clock.advance();
  assert.equal(service.stream.request.headers.Authorization, "Bearer t2");
  assert.equal(service.stream.request.query.last_event_id, "1");
  assert.notEqual(status(project), "closed");
});

test("401: renewed once at once, then after growing delays, then given up", async (t) => {
  let given = 0;
  const service = new FakeService().on("GET", "/chat/stream", () => [401, { code: "UNAUTHENTICATED" }]);
  const { clock, project } = opened(t, { service, credentials: { token: () => `t${++given}` } });
  await clock.advance();
  assert.deepEqual([opening(service), status(project)], [2, "waiting"]);
  await clock.advance(600_000);
  assert.deepEqual([opening(service), status(project)], [6, "refused"]);
});

test("a cookie can be renewed too", async (t) => {
  let renewed = 0;
  const credentials = { renewCookie: () => void renewed++ };
  const { service, clock } = opened(t, { credentials });
  await clock.advance();
  service.stream.open().send("stream.closing", { reason: "token_expired", reconnect: false }).end();
  await clock.advance();
  assert.deepEqual([renewed, opening(service)], [1, 2]);
});

test("a token's function that fails is called again later", async (t) => {
  let given = 0;
  const token = () => {
    if (++given < 3) throw new Error("offline");
    return "t";
  };
  const { service, clock, project } = opened(t, { credentials: { token } });
  await clock.advance();
  assert.deepEqual([status(project), project.state.connection.reason, opening(service)], ["waiting", "token", 0]);
  await clock.advance(500);
  await clock.advance(1000);
  assert.equal(opening(service), 1);
});

/** A service whose streams a proxy holds back, and whose history holds a poll for 25 s. */
function buffered(entries, clock) {
  const service = new FakeService();
  service.on("GET", "/chat/messages", (request) =>
    request.query.wait && Number(request.query.after_seq) >= entries.length
      ? new Promise((resolve) => clock.setTimeout(() => resolve(history(entries)(request)), 25_000))
      : history(entries)(request));
  return service;
}

test("no byte after 10 s: long polling, from where it was", async (t) => {
  const entries = [message(1), message(2)];
  const clock = new FakeClock();
  const service = buffered(entries, clock);
  const { project } = opened(t, { service, clock });
  await clock.advance(9900);
  assert.equal(status(project), "connecting");
  await clock.advance(200);
  assert.deepEqual([status(project), project.state.connection.transport], ["polling", "poll"]);
  assert.deepEqual(seqs(project), [1, 2]);
  assert.equal(service.to("/chat/messages").at(-1).query.after_seq, "2");
});

test("polling starts with the newest when nothing was shown", async (t) => {
  const clock = new FakeClock();
  const service = buffered(Array.from({ length: 100 }, (_, at) => message(at + 1)), clock);
  const { project } = opened(t, { service, clock, after: undefined, tail: 3 });
  await clock.advance(10_100);
  assert.deepEqual(seqs(project), [98, 99, 100]);
  assert.equal(project.state.hasOlder, true);
});

test("while polling, the stream is tried again at growing distances, and taken when it comes", async (t) => {
  const entries = [message(1)];
  const clock = new FakeClock();
  const service = buffered(entries, clock);
  const { project } = opened(t, { service, clock });
  await clock.advance(10_000);
  const tries = [];
  for (let minute = 0; minute < 20; minute++) {
    const before = opening(service);
    await clock.advance(60_000);
    tries.push(opening(service) - before);
    assert.equal(status(project), "polling");
  }
  assert.ok(tries[0] >= 1, `${tries}`);
  const late = tries.slice(10).reduce((sum, each) => sum + each);
  assert.ok(late >= 1 && late <= 4, `${tries}`);
  // Now the proxy lets it through.
  while (service.stream.request.signal.aborted) await clock.advance(5000);
  service.stream.open({ cursor: 1 }).message(message(2));
  await clock.advance();
  assert.deepEqual([status(project), project.state.connection.transport, seqs(project)], ["live", "stream", [1, 2]]);
  const polls = service.to("/chat/messages").length;
  service.stream.send("heartbeat", { headSeq: 2 });
  await clock.advance(40_000);
  assert.equal(service.to("/chat/messages").length, polls);
});

test("a service that does not hold a poll is not asked in a circle", async (t) => {
  const service = new FakeService().on("GET", "/chat/messages", history([]));
  const { clock } = opened(t, { service });
  await clock.advance(10_000);
  await clock.advance(10_000);
  assert.ok(service.to("/chat/messages").length <= 7);
});

test("a gap is fetched from the history in pages, while live events go on", async (t) => {
  const entries = Array.from({ length: 900 }, (_, at) => message(at + 1));
  const service = new FakeService().on("GET", "/chat/messages", history(entries));
  const { clock, project } = opened(t, { service });
  await clock.advance();
  service.stream.send("stream.open", { cursor: 0, headSeq: 898 }, { id: 0, retry: 1000 });
  for (const each of entries.slice(0, 200)) service.stream.send("message.replay", each, { id: each.seq });
  service.stream.send("replay.end", { lastReplayedSeq: 200, liveFromSeq: 899, hasMore: true });
  service.stream.send("stream.live", { headSeq: 898 }).message(entries[898]).message(entries[899]);
  await clock.advance();
  assert.deepEqual(seqs(project), entries.map((each) => each.seq));
  assert.deepEqual(project.state.gaps, []);
  assert.equal(service.to("/chat/messages").length, 4);
});

test("a gap whose page fails is tried again, and one that is refused is not", async (t) => {
  let fails = 2;
  const entries = Array.from({ length: 20 }, (_, at) => message(at + 1));
  const service = new FakeService().on("GET", "/chat/messages", (request) =>
    fails-- > 0 ? [503, { code: "STORE_UNAVAILABLE" }] : history(entries)(request));
  const { clock, project } = opened(t, { service });
  await clock.advance();
  service.stream.open({ cursor: 0, head: 20 }).message(message(20));
  await clock.advance();
  assert.deepEqual(project.state.gaps, [{ after: 0, before: 20 }]);
  await clock.advance(2000);
  assert.equal(seqs(project).length, 20);
  service.on("GET", "/chat/messages", () => [403, { code: "FORBIDDEN" }]);
  const before = service.to("/chat/messages").length;
  service.stream.message(message(30)).message(message(31)).message(message(32));
  await clock.advance(40_000);
  assert.equal(service.to("/chat/messages").length, before + 1);
});

test("a reset replaces everything with the newest page", async (t) => {
  const entries = Array.from({ length: 80 }, (_, at) => message(at + 1, { text: `restored ${at + 1}` }));
  const service = new FakeService().on("GET", "/chat/messages", history(entries));
  const { clock, project } = opened(t, { service, tail: 10 });
  await clock.advance();
  service.stream.open({ cursor: 0 }).message(message(1)).message(message(2));
  service.stream.send("stream.reset", { reason: "cursor_ahead", firstSeq: 1, headSeq: 80 }, { id: 80 });
  service.stream.send("stream.live", { headSeq: 80 }).message(message(81));
  await clock.advance();
  assert.deepEqual(seqs(project), [71, 72, 73, 74, 75, 76, 77, 78, 79, 80, 81]);
  assert.equal(project.state.messages[0].text, "restored 71");
  assert.equal(await project.loadOlder(100), false);
  assert.equal(seqs(project)[0], 1);
});

test("after close nothing is asked for, and no timer is left", async (t) => {
  const { service, clock, project } = opened(t);
  await clock.advance();
  service.stream.open().send("typing.start", { userId: "bob" });
  await clock.advance();
  assert.deepEqual(project.state.typing, ["bob"]);
  project.close();
  const { length } = service.requests;
  await clock.advance(600_000);
  assert.deepEqual([service.requests.length, clock.waiting, status(project)], [length, 0, "closed"]);
});

test("closing ends what waits for the history too", async (t) => {
  const service = new FakeService().on("GET", "/chat/messages", () => [503, {}]);
  const { clock, project } = opened(t, { service });
  await clock.advance();
  service.stream.open({ cursor: 0 }).message(message(5));
  service.stream.send("stream.reset", { reason: "trimmed", headSeq: 5 }).message(message(9));
  await clock.advance(100);
  project.loadOlder().catch(() => {});
  project.close();
  await clock.advance();
  assert.equal(clock.waiting, 0);
});

test("a listener is called once for all that comes together; one that throws harms no other", async (t) => {
  const { service, clock, project } = opened(t);
  t.mock.method(console, "error", () => {});
  await clock.advance();
  let calls = 0;
  project.subscribe(() => {
    throw new Error("mine");
  });
  const stop = project.subscribe(() => calls++);
  service.stream.open({ cursor: 0, head: 3, replay: [message(1), message(2), message(3)] });
  await settle();
  assert.ok(calls >= 1 && calls <= 8, `${calls}`);
  const { state } = project;
  assert.equal(project.state, state);
  stop();
  service.stream.message(message(4));
  const before = calls;
  await settle();
  assert.equal(calls, before);
  assert.notEqual(project.state, state);
});

test("what is no JSON is passed over", async (t) => {
  const { service, clock, project } = opened(t);
  await clock.advance();
  service.stream.open().raw("event: message.new\ndata: {\n\n").message(message(1));
  await clock.advance();
  assert.deepEqual(seqs(project), [1]);
});
