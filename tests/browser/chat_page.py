"""The chat page as its user sees it: by roles and names, so that what is tested can be used.

And the project that it shows. What the page logs as an error is kept, such as a breach of policy.
"""

from __future__ import annotations

from typing import NamedTuple

from playwright.async_api import BrowserContext, ConsoleMessage, Locator, Page, expect

from tests.support.api import Api
from tests.support.completions_server import CompletionsServer
from tests.support.processes import ServiceProcess
from tests.support.signing import token

# A network error is logged by the browser itself; tests that cut the network expect it.
_NETWORK = ("Failed to load resource", "net::ERR_")


class ChatPage:
    """One open chat page, and what went wrong in it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.problems: list[str] = []
        page.on("console", self._logged)
        page.on("pageerror", lambda error: self.problems.append(str(error)))

    @classmethod
    async def open(
        cls,
        context: BrowserContext,
        service: ServiceProcess,
        project: str,
        *,
        user: str = "alice",
        path: str = "/chat",
    ) -> ChatPage:
        """Open the page with a token, and wait until it is live."""
        chat = cls(await context.new_page())
        credentials = token(user, projects=[project], scope="read write")
        await chat.page.goto(f"{service.url}{path}#{credentials}")
        await chat.is_live()
        return chat

    async def is_live(self) -> None:
        """Wait until the page says that it is live."""
        await expect(self.status).to_have_text("Live")

    @property
    def status(self) -> Locator:
        """How the page says it is connected."""
        return self.page.get_by_role("status")

    @property
    def field(self) -> Locator:
        """Where a message is written."""
        return self.page.get_by_role("textbox", name="Message")

    @property
    def log(self) -> Locator:
        """The conversation."""
        return self.page.get_by_role("log", name="Messages")

    @property
    def messages(self) -> Locator:
        """All messages, in the order of the page."""
        return self.log.get_by_role("article")

    def message(self, text: str) -> Locator:
        """The messages that hold a text."""
        return self.messages.filter(has_text=text)

    async def send(self, text: str, *, mode: str | None = None) -> None:
        """Write a message and send it by the button."""
        if mode is not None:
            await self.page.get_by_role("radio", name=mode).check(force=True)
        await self.field.fill(text)
        await self.page.get_by_role("button", name="Send").click()

    async def texts(self) -> list[str]:
        """The texts of the messages, in the order of the page."""
        return await self.messages.locator(".text").all_inner_texts()

    async def seqs(self) -> list[int]:
        """The seqs of the stored messages, in the order of the page."""
        found = await self.messages.evaluate_all("all => all.map(each => each.dataset.seq)")
        return [int(seq) for seq in found if seq is not None]

    def _logged(self, message: ConsoleMessage) -> None:
        if message.type not in ("error", "warning"):
            return
        if not any(known in message.text for known in _NETWORK):
            self.problems.append(message.text)


class Room(NamedTuple):
    """A project of alice for one test, on the service that all share."""

    service: ServiceProcess
    assistant: CompletionsServer
    id: str
    alice: Api
    bob: Api

    async def fill(self, total: int) -> None:
        """Have alice post so many messages at once."""
        body = {"messages": [{"message": f"message {k}"} for k in range(1, total + 1)]}
        path = f"/v1/projects/{self.id}/chat/messages/batch"
        assert (await self.alice.request("POST", path, body)).status_code == 201

    async def stored(self) -> list[str]:
        """The texts in the log, in order."""
        return [row.text for row in await self.alice.log(self.id)]
