"""The browser and Node client in Chromium, with a real service behind a proxy that cuts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page, Route

from tests.acceptance.conftest import Project
from tests.conftest import StartService
from tests.support.api import Api
from tests.support.processes import ServiceProcess
from tests.support.signing import token
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import wait_until

_CLIENT = Path(__file__).resolve().parents[2] / "service" / "web" / "client"
_PAGE = """<!doctype html><title>client</title><script type="module">
import { open } from "/test-client/seqstream.js";
window.project = open({
  project: %r, after: 0, credentials: { token: %r, via: "query" }, userId: "owner",
});
</script>"""


async def _serve(route: Route) -> None:
    """Answer for the client's modules; the rest of the page's requests go to the service."""
    name = route.request.url.rpartition("/")[2]
    await route.fulfill(path=_CLIENT / name, content_type="text/javascript")


@pytest.fixture
async def service(start_service: StartService) -> ServiceProcess:
    """A service of the test's."""
    return await start_service()


@pytest.fixture
async def project(service: ServiceProcess) -> AsyncIterator[Project]:
    """A project of the user `owner`."""
    async with Api(service.url, "owner") as api:
        await api.create_project("p")
        yield Project("p", api, token("owner"))


@pytest.fixture
async def proxy(service: ServiceProcess) -> AsyncIterator[TcpProxy]:
    """The page's way to the service."""
    async with TcpProxy(service.port) as running:
        yield running


@pytest.fixture
async def page(browser: Browser, project: Project, proxy: TcpProxy) -> AsyncIterator[Page]:
    """A page with the client, of the proxy's origin."""
    page = await browser.new_page()
    html = _PAGE % (project.id, token("owner", scope="read write"))
    await page.route("**/test-client/*", _serve)
    await page.route(
        "**/test-client.html", lambda route: route.fulfill(body=html, content_type="text/html")
    )
    await page.goto(f"http://127.0.0.1:{proxy.port}/test-client.html")
    yield page
    await page.close()


async def _shown(page: Page) -> list[list[object]]:
    script = "project.state.messages.map((item) => [item.seq, item.messageId, item.text])"
    shown: list[list[object]] = await page.evaluate(script)
    return shown


async def _is_live(page: Page) -> bool:
    return bool(await page.evaluate("project.state.connection.status === 'live'"))


async def test_client_resumes_in_a_browser(page: Page, project: Project, proxy: TcpProxy) -> None:
    """§2 G3: after cuts, and after a time offline, the list is the log, one's own post included."""
    await wait_until(lambda: _is_live(page), timeout_s=30, what="live")
    await page.evaluate("void project.send('mine')")
    await project.fill(5)
    assert proxy.cut() >= 1
    await project.fill(300)
    await wait_until(lambda: _is_live(page), timeout_s=30, what="live again")
    await page.context.set_offline(True)
    proxy.cut()
    await page.evaluate("void project.send('written offline')")
    await project.fill(600)
    await wait_until(
        lambda: page.evaluate("project.state.connection.status === 'waiting'"),
        timeout_s=30, what="the wait",
    )  # fmt: skip
    await page.context.set_offline(False)

    async def has_all() -> bool:
        log = await project.api.log(project.id)
        expected = [[row.seq, row.message_id, row.text] for row in log]
        return len(log) == 601 and await _shown(page) == expected

    await wait_until(has_all, timeout_s=30, what="the whole log")
