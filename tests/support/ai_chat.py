"""A chat of the AI SDK in a Node process, over one project: what it shows, and what its user does.

The program is tests/web_client/ai_chat_program.mjs; it is spoken to in lines of JSON.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

import msgspec

from tests.support.node_modules import FOLDER
from tests.support.waiting import wait_until

_LINE_BYTES = 16 * 1024 * 1024
_END_TIMEOUT_S = 10.0


class ShownCall(msgspec.Struct, rename="camel"):
    """A call of a tool; the input is None until it is whole."""

    tool_name: str
    input: object = None


class ShownMessage(msgspec.Struct):
    """A message of the chat."""

    id: str
    role: str
    text: str
    reasoning: str
    calls: list[ShownCall]
    ending: str | None


class ShownChat(msgspec.Struct):
    """What `useChat` would give."""

    status: str
    error: str | None
    messages: list[ShownMessage]

    @property
    def texts(self) -> list[str]:
        """The messages' texts."""
        return [message.text for message in self.messages]


class AiChat:
    """One chat; `async with` runs its process."""

    def __init__(self, url: str, project_id: str, token: str) -> None:
        self.shown = ShownChat("", None, [])
        arguments = {"url": url, "project": project_id, "token": token}
        self._arguments = msgspec.json.encode(arguments).decode()
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            "node", str(FOLDER / "ai_chat_program.mjs"), self._arguments, limit=_LINE_BYTES,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read(), name="ai-chat")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process is not None
        assert self._reading is not None
        try:
            async with asyncio.timeout(_END_TIMEOUT_S):
                self.do(close=True)
                await self._process.wait()
        except (TimeoutError, OSError):
            self._process.kill()
            await self._process.wait()
        await self._reading

    def do(self, **command: object) -> None:
        """Have the user do something: `send`, `resume`, `regenerate`, `stop`."""
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(msgspec.json.encode(command) + b"\n")

    async def shows(self, condition: Callable[[ShownChat], bool], *, what: str) -> ShownChat:
        """Wait until the chat shows something; return what."""
        try:
            await wait_until(lambda: condition(self.shown), timeout_s=20, what=what)
        except TimeoutError as error:
            raise AssertionError(f"{what}: {self.shown}") from error
        return self.shown

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            self.shown = msgspec.json.decode(line, type=ShownChat)
