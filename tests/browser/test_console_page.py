"""The console's page in a real browser, on a real service: what it shows, and what it admits."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import pytest
from playwright.async_api import Browser, Page, expect

from service.operate.embedded import RedisServer
from tests.conftest import StartService
from tests.support.api import Api
from tests.support.processes import ServiceProcess
from tests.support.raw_stream import raw_request
from tests.support.signing import token

_ADMIN = token("operator", scope="admin")


@pytest.fixture
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that the test stops."""
    with RedisServer(tmp_path_factory.mktemp("redis") / "data") as server:
        yield server


async def _with_project(process: ServiceProcess) -> ServiceProcess:
    """Make a project of alice."""
    async with Api(process.url, "alice") as api:
        await api.create_project("demo")
    return process


@pytest.fixture
async def page(browser: Browser) -> AsyncIterator[Page]:
    """An empty page on a phone. At its end, nothing may have broken its policy or thrown."""
    async with await browser.new_context(viewport={"width": 390, "height": 844}) as context:
        page = await context.new_page()
        problems: list[str] = []
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console",
            lambda message: (
                problems.append(message.text)
                if message.type in ("error", "warning") and "Failed to load" not in message.text
                else None
            ),
        )
        yield page
        assert problems == []


async def test_a_message_is_seen_on_its_way_and_a_stopped_redis_is_admitted(
    page: Page, start_service: StartService, own_redis: RedisServer
) -> None:
    """The tiers and the legs of a message; without Redis its row says so, and the rest goes on."""
    service = await _with_project(await start_service({"REDIS_URL": own_redis.url}))
    stream = f"/v1/projects/demo/chat/stream?token={token('alice')}"
    async with raw_request(service.port, stream) as reader, Api(service.url, "alice") as api:
        assert reader.status == 200
        await page.goto(f"{service.url}/console#{_ADMIN}")
        # The token is not left in the address, where a screenshot would show it.
        await expect(page.get_by_role("status").first).to_have_text("live")
        assert page.url == f"{service.url}/console"
        await page.get_by_role("link", name="demo").click()
        await expect(page.locator("#legs-note")).to_have_text("watching; nothing came yet")
        await api.post("demo", "a private text")
        leg = page.locator("#legs tbody tr", has_text="1-0")
        await expect(leg).to_contain_text("message.new")
        published = leg.locator("td").nth(1)
        await expect(published).not_to_have_text("–")
        await expect(page.get_by_role("img", name="Redis: seqs 1 to 1, no holes")).to_be_visible()
        await expect(page.locator("#streams tbody tr")).to_contain_text("alice")
        own_redis.stop()
        await expect(page.get_by_role("img", name="Redis: not reachable")).to_be_visible()
        await api.post("demo", "another")
        later = page.locator("#legs tbody tr", has_text="2-0")
        await expect(later.locator("td").nth(1)).to_have_text("–")
        await expect(page.get_by_role("img", name="Postgres: seqs 1 to 2")).to_be_visible()
        assert "private text" not in await page.content()
        assert not await page.evaluate("document.documentElement.scrollWidth > innerWidth")


async def test_it_is_used_by_keyboard_and_says_what_it_cannot_do(
    page: Page, start_service: StartService
) -> None:
    """A refused token asks for another; without its service it does not look as if it were live."""
    service = await _with_project(await start_service())
    await page.goto(f"{service.url}/console")
    await page.keyboard.type(token("alice", scope="read write worker"))
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("alert")).to_have_text("This token has not the scope “admin”.")
    await page.keyboard.type(_ADMIN)
    await page.keyboard.press("Enter")
    state = page.locator("#state")
    await expect(state).to_have_text("live")
    stream = f"/v1/projects/demo/chat/stream?token={token('alice')}"
    async with raw_request(service.port, stream):
        head = page.get_by_role("columnheader", name="Lag")
        await head.get_by_role("button").press("Enter")
        await expect(head).to_have_attribute("aria-sort", "descending")
        await page.get_by_role("link", name="demo").press("Enter")
        await expect(page.get_by_role("heading", name="demo")).to_be_visible()
        await expect(state).to_have_text("live")
    await page.context.set_offline(True)
    await expect(state).to_have_text("not reachable")
    await expect(page.get_by_role("alert")).to_contain_text("What is shown is from")
    await expect(page.locator("#project")).to_have_class("stale")
    await page.context.set_offline(False)
    await expect(state).to_have_text("live", timeout=10_000)
    await expect(page.get_by_role("alert")).to_be_hidden()
    await page.goto(f"{service.url}/console#project=no-such")
    await expect(page.get_by_role("alert")).to_have_text("no-such: No such project")
