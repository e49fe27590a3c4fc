"""The browser client in real tabs: one stream for all of them, and state that outlives a reload."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import count

import httpx
import msgspec
import pytest
from playwright.async_api import Browser, BrowserContext, Page

from service.operate.embedded import PostgresServer, RedisServer
from streams import EventLog
from tests.support.api import Api
from tests.support.processes import ServiceProcess, service_environment
from tests.support.signing import token
from tests.support.waiting import wait_until

_USER = "alice"
_numbers = count(1)
# A page without a content security policy, on the service's own origin.
_PAGE = "/health/live"

_OPEN = """async ([options, credential]) => {
  const {open} = await import("/client/seqstream.js");
  // Faster than time, until the client does something on the network.
  let [speed, from, base] = [options.speed ?? 1, performance.now(), Date.now()];
  const clock = {
    now: () => base + (performance.now() - from) * speed,
    setTimeout: (callback, ms) => setTimeout(callback, ms / speed),
    clearTimeout: (timer) => clearTimeout(timer),
    random: Math.random,
  };
  const source = options.mute
    ? () => ({start() {}, stop() {}, wake() {}, reconnect() {}}) : undefined;
  window.project = open({
    userId: "alice", credentials: {token: credential}, clock, source, ...options,
  });
  project.subscribe(() => {
    if (speed === 1 || project.state.connection.status === "connecting") return;
    [base, from, speed] = [clock.now(), performance.now(), 1];
  });
}"""
_STATE = """() => ({
  status: project.state.connection.status,
  reason: project.state.connection.reason ?? null,
  seqs: project.state.messages.filter((m) => m.status === "stored").map((m) => m.seq),
  texts: project.state.messages.map((m) => m.text),
  answers: project.state.messages.filter((m) => m.status === "writing").map((m) => m.text),
  unsent: project.state.messages.filter((m) => m.seq === null).map((m) => m.status),
})"""


@pytest.fixture(scope="module")
def database_url(postgres: PostgresServer, template_database: str) -> str:
    """A database for this module."""
    return postgres.create_database("tabs", template=template_database)


@pytest.fixture(scope="module")
async def service(
    database_url: str, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServiceProcess]:
    """A service for this module, whose open streams are counted."""
    environment = service_environment(database_url, redis_server.url)
    async with ServiceProcess("tabs", tmp_path_factory.mktemp("tabs"), environment) as process:
        yield process


@pytest.fixture
async def api(service: ServiceProcess) -> AsyncIterator[Api]:
    """Alice's signed requests."""
    async with Api(service.url, _USER) as api:
        yield api


@pytest.fixture
async def project(api: Api) -> str:
    """A project of alice for one test."""
    name = f"tabs-{next(_numbers)}"
    await api.create_project(name)
    return name


@pytest.fixture
async def context(browser: Browser) -> AsyncIterator[BrowserContext]:
    """A fresh profile, which all tabs of a test share."""
    async with await browser.new_context() as context:
        yield context


async def _tab(
    context: BrowserContext,
    service: ServiceProcess,
    project: str,
    *,
    user: str = _USER,
    **options: object,
) -> Page:
    page = await context.new_page()
    await page.goto(service.url + _PAGE)
    options = {"project": project, "userId": user, **options}
    await page.evaluate(_OPEN, [options, token(user, scope="read write")])
    return page


async def _until(page: Page, condition: str, what: str, *, timeout_s: float = 20.0) -> None:
    """Wait until a condition on the tab's state `s` holds."""

    async def holds() -> bool:
        return bool(await page.evaluate(f"() => {{ const s = ({_STATE})(); return {condition}; }}"))

    try:
        await wait_until(holds, timeout_s=timeout_s, what=what)
    except TimeoutError as error:
        raise AssertionError(f"{what}: {await page.evaluate(_STATE)}") from error


async def _until_open_streams(service: ServiceProcess, count: int) -> None:
    """Wait until the service has so many open streams: those of earlier tests may still end."""

    async def holds() -> bool:
        async with httpx.AsyncClient(trust_env=False, verify=False) as http:
            text = (await http.get(f"{service.url}/metrics")).text
        return f"\nsse_connections {count}.0\n" in text

    await wait_until(holds, timeout_s=10, what=f"{count} open streams")


async def test_tabs_share_one_stream_and_lose_nothing_when_the_service_is_killed(
    service: ServiceProcess, api: Api, context: BrowserContext, project: str
) -> None:
    """G3: each tab has every message once, in order, over a killed service and a closed leader."""
    for number in range(3):
        await api.post(project, f"m{number}")
    tabs = [await _tab(context, service, project, shareTabs=True) for _ in range(3)]
    for tab in tabs:
        await _until(tab, "s.status === 'live' && s.seqs.join() === '1,2,3'", "the first three")
    await _until_open_streams(service, 1)
    await tabs[2].evaluate("() => project.send('from a tab that follows')")
    await service.kill()
    await service.start()
    await api.post(project, "after the kill")
    for tab in tabs:
        await _until(tab, "s.status === 'live' && s.seqs.join() === '1,2,3,4,5'", "all five")
    # The first tab holds the lock: the browser gives it to the next one.
    await tabs.pop(0).close()
    await api.post(project, "after the leader's end")
    for tab in tabs:
        await _until(tab, "s.status === 'live' && s.seqs.join() === '1,2,3,4,5,6'", "all six")
    await _until_open_streams(service, 1)


async def test_a_tab_that_joins_late_has_the_messages_and_the_answer_so_far(
    service: ServiceProcess,
    api: Api,
    context: BrowserContext,
    project: str,
    database_url: str,
    redis_server: RedisServer,
) -> None:
    """§6: it begins with the newest page; pieces of an answer come from the tab that leads."""
    for number in range(3):
        await api.post(project, f"m{number}")
    leader = await _tab(context, service, project, shareTabs=True)
    await _until(leader, "s.status === 'live'", "the leader's stream")
    # Of an answer that goes on: the service's own would end before another tab is open.
    async with EventLog.open(database_url, redis_server.url) as log:
        for index, text in enumerate(["one ", "two "]):
            content = {"messageId": "answer", "index": index, "kind": "text", "delta": text}
            piece = {"projectId": project, "userId": _USER, "content": content, "timestamp": ""}
            await log.append_transient(project, "message.delta", msgspec.json.encode(piece))
    await _until(leader, "s.answers.join() === 'one two '", "the answer in the leader")
    late = await _tab(context, service, project, shareTabs=True)
    await _until(late, "s.answers.join() === 'one two ' && s.seqs.join() === '1,2,3'", "the same")
    await _until_open_streams(service, 1)


async def test_a_leader_that_gives_no_sign_is_replaced(
    service: ServiceProcess, api: Api, context: BrowserContext, project: str
) -> None:
    """A frozen tab keeps its lock: after 45 s of silence another one takes it."""
    await api.post(project, "m0")
    frozen = await context.new_page()
    await frozen.goto(service.url + _PAGE)
    name = f'seqstream:["{service.url}","{_USER}","{project}"]'
    await frozen.evaluate(
        "(name) => { navigator.locks.request(name, () => new Promise(() => {})).catch(() => {}); }",
        name,
    )
    tab = await _tab(context, service, project, shareTabs=True, speed=60)
    await _until(tab, "s.status === 'live' && s.seqs.join() === '1'", "a stream of its own")


async def test_a_reload_shows_what_was_stored_and_sends_what_was_not_sent(
    service: ServiceProcess, api: Api, context: BrowserContext, project: str
) -> None:
    """G5: the message that the first page could not send is in the log once."""
    await api.post(project, "m0")
    tab = await _tab(context, service, project, persist=True)
    await _until(tab, "s.status === 'live' && s.seqs.join() === '1'", "the first message")
    await tab.route("**/chat/messages", lambda route: route.abort())
    await tab.evaluate("() => { project.send('unsent'); }")
    await _until(tab, "s.unsent.join() === 'sending'", "a message under way")
    await tab.evaluate("() => project.close()")
    await tab.close()
    mute = await _tab(context, service, project, persist=True, mute=True, sendTimeoutMs=1)
    await _until(mute, "s.texts[0] === 'm0'", "the stored message without any stream")
    again = await _tab(context, service, project, persist=True)
    await _until(again, "s.status === 'live' && s.seqs.join() === '1,2'", "both")
    assert [row.text for row in await api.log(project)] == ["m0", "unsent"]


async def test_another_user_of_the_browser_sees_nothing_that_was_stored(
    service: ServiceProcess, api: Api, context: BrowserContext, project: str
) -> None:
    """What is kept belongs to one user."""
    await api.post(project, "secret")
    tab = await _tab(context, service, project, persist=True)
    await _until(tab, "s.seqs.join() === '1'", "the message")
    await tab.evaluate("() => project.close()")
    other = await _tab(context, service, project, user="mallory", persist=True)
    await _until(other, "s.status === 'refused'", "the refusal")
    assert await other.evaluate("() => project.state.messages.length") == 0


async def test_what_was_stored_goes_with_the_access(
    service: ServiceProcess, api: Api, context: BrowserContext, project: str
) -> None:
    """G8, G9: a member who was removed has nothing of the project in its browser."""
    await api.post(project, "secret")
    await api.add_member(project, "leaver")
    tab = await _tab(context, service, project, user="leaver", persist=True)
    await _until(tab, "s.status === 'live' && s.seqs.join() === '1'", "the message")
    await tab.evaluate("() => project.close()")
    again = await _tab(context, service, project, user="leaver", persist=True)
    await _until(again, "s.status === 'live'", "the stream")
    response = await api.request("DELETE", f"/v1/projects/{project}/members/leaver")
    assert response.status_code == 204
    await _until(again, "s.status === 'closed' || s.status === 'refused'", "the end of access")
    await again.evaluate("() => project.close()")
    kept = await again.evaluate("""() => new Promise((resolve, reject) => {
      const request = indexedDB.open("seqstream");
      request.onerror = () => reject(request.error);
      request.onsuccess = () => {
        const count = request.result.transaction("snapshots").objectStore("snapshots").count();
        count.onsuccess = () => resolve(count.result);
      };
    })""")
    assert kept == 0
