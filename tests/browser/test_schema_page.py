"""The API page in a real browser that has no network but this machine's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, Route, expect

from tests.conftest import StartService
from tests.support.processes import ServiceProcess


class Visit:
    """A page, and what it asked for and complained of."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.elsewhere: list[str] = []
        self.complaints: list[str] = []

    async def watch(self) -> None:
        """Refuse what goes to another host; note it, and what the browser refuses or logs."""
        await self.page.route("**/*", self._let_through)
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self._note("error", str(error)))

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.complaints.append(text)

    async def _let_through(self, route: Route) -> None:
        if urlsplit(route.request.url).hostname == "127.0.0.1":
            await route.continue_()
            return
        self.elsewhere.append(route.request.url)
        await route.abort()


@pytest.fixture
async def service(start_service: StartService) -> ServiceProcess:
    """A service as it is by default."""
    return await start_service()


@pytest.fixture
async def visit(browser: Browser) -> AsyncIterator[Visit]:
    """A fresh page of a fresh profile."""
    async with await browser.new_context() as context:
        visit = Visit(await context.new_page())
        await visit.watch()
        yield visit


async def test_the_page_renders_without_a_network(service: ServiceProcess, visit: Visit) -> None:
    """§4: `/schema` shows the API from this service's files alone, within its policy."""
    await visit.page.goto(f"{service.url}/schema")
    await expect(visit.page.get_by_role("heading", name="seqstream")).to_be_visible()
    operation = visit.page.locator(".opblock", has_text="/v1/chat/unified")
    await expect(operation).to_have_count(1)
    await operation.locator(".opblock-summary").click()
    await expect(operation.get_by_role("button", name="Try it out")).to_be_visible()
    assert visit.elsewhere == []
    assert visit.complaints == []


async def test_the_page_can_ask_its_own_service(service: ServiceProcess, visit: Visit) -> None:
    """§4: the policy lets the page call the service that it describes."""
    await visit.page.goto(f"{service.url}/schema")
    operation = visit.page.locator(".opblock").filter(has_text="/health/live")
    await operation.locator(".opblock-summary").click()
    await operation.get_by_role("button", name="Try it out").click()
    await operation.get_by_role("button", name="Execute").click()
    await expect(operation.locator(".live-responses-table")).to_contain_text("healthy")
    assert visit.elsewhere == []


async def test_the_demo_page_complains_of_nothing(service: ServiceProcess, visit: Visit) -> None:
    """§4: the demo's own script and style are what its policy names."""
    await visit.page.goto(f"{service.url}/demo")
    status = visit.page.get_by_role("status")
    await expect(status).to_have_text("open this page with a token behind the #")
    await expect(status).to_have_css("color", "rgb(85, 85, 85)")
    assert visit.elsewhere == []
    assert visit.complaints == []
