"""The API page in a real browser without network access beyond this machine."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Browser, Page, Route, expect

from tests.conftest import StartService
from tests.support.processes import ServiceProcess


class Visit:
    """A page, the foreign URLs it requested, and the errors and warnings it logged."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.foreign_requests: list[str] = []
        self.problems: list[str] = []

    async def watch(self) -> None:
        """Block and record requests to other hosts; record errors and warnings of the page."""
        await self.page.route("**/*", self._allow_local)
        self.page.on("console", lambda message: self._note(message.type, message.text))
        self.page.on("pageerror", lambda error: self._note("error", str(error)))

    def _note(self, kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            self.problems.append(text)

    async def _allow_local(self, route: Route) -> None:
        if urlsplit(route.request.url).hostname == "127.0.0.1":
            await route.continue_()
            return
        self.foreign_requests.append(route.request.url)
        await route.abort()


@pytest.fixture
async def service(start_service: StartService) -> ServiceProcess:
    """A service with default settings."""
    return await start_service()


@pytest.fixture
async def visit(browser: Browser) -> AsyncIterator[Visit]:
    """A page in a fresh profile."""
    async with await browser.new_context() as context:
        visit = Visit(await context.new_page())
        await visit.watch()
        yield visit


async def test_the_page_renders_without_a_network(service: ServiceProcess, visit: Visit) -> None:
    """§4: `/schema` needs only files of this service, and obeys its content security policy."""
    await visit.page.goto(f"{service.url}/schema")
    await expect(visit.page.get_by_role("heading", name="seqstream")).to_be_visible()
    operation = visit.page.locator(".opblock", has_text="/v1/chat/unified")
    await expect(operation).to_have_count(1)
    await operation.locator(".opblock-summary").click()
    await expect(operation.get_by_role("button", name="Try it out")).to_be_visible()
    assert visit.foreign_requests == []
    assert visit.problems == []


async def test_the_page_can_call_its_own_service(service: ServiceProcess, visit: Visit) -> None:
    """§4: the policy lets the page call the service that it describes."""
    await visit.page.goto(f"{service.url}/schema")
    operation = visit.page.locator(".opblock").filter(has_text="/health/live")
    await operation.locator(".opblock-summary").click()
    await operation.get_by_role("button", name="Try it out").click()
    await operation.get_by_role("button", name="Execute").click()
    await expect(operation.locator(".live-responses-table")).to_contain_text("healthy")
    assert visit.foreign_requests == []
