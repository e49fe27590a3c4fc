"""The demo page in a real browser: posts, answers and reconnects as a user sees them."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Browser, Page, expect

from tests.conftest import StartService
from tests.support.api import Api
from tests.support.processes import ServiceProcess
from tests.support.signing import token


@pytest.fixture
async def service(start_service: StartService) -> ServiceProcess:
    """A service with a project of alice."""
    process = await start_service()
    async with Api(process.url, "alice") as api:
        created = await api.request("POST", "/v1/projects", {"id": "demo", "name": "Demo"})
        assert created.status_code == 201
    return process


@pytest.fixture
async def page(browser: Browser, service: ServiceProcess) -> AsyncIterator[Page]:
    """The demo page with a live stream."""
    credentials = token("alice", projects=["demo"], scope="read write")
    async with await browser.new_context() as context:
        page = await context.new_page()
        await page.goto(f"{service.url}/demo#{credentials}")
        await expect(page.get_by_role("status")).to_have_text("live: demo")
        yield page


async def test_a_message_is_shown_once_with_its_seq(page: Page) -> None:
    """G4: the message from the stream replaces the pending copy that the page showed on send."""
    await page.get_by_label("message").fill("from the browser")
    await page.get_by_role("button").click()
    shown = page.locator("li", has_text="from the browser")
    await expect(shown).to_have_text("1 alicefrom the browser")
    await expect(shown).to_have_count(1)


async def test_another_users_message_arrives(page: Page, service: ServiceProcess) -> None:
    """§2: every open stream gets every message."""
    async with Api(service.url, "alice") as api:
        path = "/v1/projects/demo/chat/messages"
        assert (await api.request("POST", path, {"message": "by another way"})).status_code == 201
    await expect(page.locator("li", has_text="by another way")).to_have_count(1)


async def test_message_text_is_not_rendered_as_markup(page: Page) -> None:
    """HTML in a message is shown as text."""
    await page.get_by_label("message").fill("<b>bold</b>")
    await page.get_by_role("button").click()
    await expect(page.locator("li", has_text="<b>bold</b>")).to_have_count(1)


async def test_a_streamed_answer_ends_as_one_message(page: Page) -> None:
    """§5: the final message replaces the deltas, which have the same message id."""
    await page.get_by_label("message").fill("what now?")
    await page.get_by_label("mode").select_option("plan")
    await page.get_by_role("button").click()
    answer = page.locator("li.assistant:not(.pending)")
    await expect(answer).to_contain_text("You asked: what now?")
    await expect(page.locator("li.assistant")).to_have_count(1)


async def test_the_page_resumes_after_the_service_restarts(
    page: Page, service: ServiceProcess
) -> None:
    """§6: the EventSource resumes after its last event; no message is shown twice."""
    await page.get_by_label("message").fill("before")
    await page.get_by_role("button").click()
    await expect(page.locator("li", has_text="before")).to_have_text("1 alicebefore")
    await service.stop()
    await service.start()
    async with Api(service.url, "alice") as api:
        path = "/v1/projects/demo/chat/messages"
        assert (await api.request("POST", path, {"message": "after"})).status_code == 201
    await expect(page.locator("li", has_text="after")).to_have_count(1, timeout=20_000)
    await expect(page.locator("li", has_text="before")).to_have_count(1)
