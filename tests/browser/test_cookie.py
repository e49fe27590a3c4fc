"""docs/protocol.md §3 in a real browser: streams by cookie, and cross-origin writes refused."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, Page, Response

from tests.conftest import StartService
from tests.support.api import Api
from tests.support.processes import ServiceProcess
from tests.support.signing import token
from tests.support.waiting import wait_until

_PROJECT = "cookies"
_BUILD = "00000000-0000-4000-8000-000000000000"

_SET_COOKIE = """async ([path, credentials]) => (await fetch(path, {
  method: "POST", body: JSON.stringify({cookie: true}),
  headers: {"Authorization": `Bearer ${credentials}`, "Content-Type": "application/json"},
})).status"""
_READ_STREAM = """(path) => new Promise((resolve, reject) => {
  const source = new EventSource(path);
  const texts = [];
  source.addEventListener("message.replay", (e) => texts.push(JSON.parse(e.data).content.text));
  source.addEventListener("stream.live", () => { source.close(); resolve(texts); });
  source.addEventListener("error", () => reject(new Error("refused")));
})"""
_POST_NO_CORS = """(url) => fetch(url, {method: "POST", mode: "no-cors", credentials: "include"})
  .then(() => "sent", () => "failed")"""


@pytest.fixture
async def service(start_service: StartService) -> ServiceProcess:
    """A service with a project of alice that has one message."""
    process = await start_service()
    async with Api(process.url, "alice") as api:
        await api.create_project(_PROJECT)
        await api.post(_PROJECT, "hello")
    return process


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """A page in a fresh profile, which keeps cookies until the end of the test."""
    async with await browser.new_context() as context:
        yield await context.new_page()


async def _visit(page: Page, origin: str) -> None:
    """Open a page of this origin that has no content security policy."""
    await page.goto(f"{origin}/health/live")


async def test_an_event_source_reads_with_only_a_cookie(
    service: ServiceProcess, page: Page
) -> None:
    """§3: `{"cookie": true}` sets it, the browser sends it, scripts cannot read it."""
    await _visit(page, service.url)
    credentials = token("alice", scope="read write")
    path = f"/v1/projects/{_PROJECT}"
    assert await page.evaluate(_SET_COOKIE, [f"{path}/stream-tokens", credentials]) == 204
    assert await page.evaluate("document.cookie") == ""
    assert await page.evaluate(_READ_STREAM, f"{path}/chat/stream?from_seq=0") == ["hello"]


@pytest.mark.parametrize(("host", "status"), [("127.0.0.1", 403), ("localhost", 401)])
async def test_a_page_of_another_origin_cannot_write(
    service: ServiceProcess, start_service: StartService, page: Page, host: str, status: int
) -> None:
    """§3: a same-site origin (another port of the host) gets 403, though the cookie is sent.

    From another site the browser sends no cookie, so 401. From the service's own page the same
    request is accepted and gets 404, because no build has the id.
    """
    other = await start_service()
    await page.context.add_cookies(
        [
            {
                "name": "seqstream_token",
                "value": token("alice", scope="read write"),
                "url": service.url,
                "httpOnly": True,
                "sameSite": "Strict",
            }
        ]
    )
    answers: list[Response] = []
    page.on("response", lambda answer: answers.append(answer))
    target = f"{service.url}/v1/projects/{_PROJECT}/builds/{_BUILD}/cancel"

    async def status_from(origin: str) -> int:
        await _visit(page, origin)
        answers.clear()
        await page.evaluate(_POST_NO_CORS, target)
        await wait_until(lambda: any(a.url == target for a in answers), what="the answer")
        return next(answer.status for answer in answers if answer.url == target)

    assert await status_from(service.url) == 404
    assert await status_from(f"http://{host}:{other.port}") == status
