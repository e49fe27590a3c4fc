"""The documented programs that send, follow and answer run as they are printed."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from service.client import Client, Delta, Event, Message
from tests.acceptance.conftest import Project, Services
from tests.support.api import Api
from tests.support.processes import ROOT
from tests.support.signing import token
from tests.support.waiting import wait_until


@contextlib.asynccontextmanager
async def _running(
    services: Services, *words: str, user: str = "owner", scope: str = "read write"
) -> AsyncIterator[asyncio.StreamReader]:
    """Run a program of Python; yield what it prints, and end it as a supervisor would."""
    async with _process(services, *words, user=user, scope=scope) as process:
        assert process.stdout is not None
        yield process.stdout


@contextlib.asynccontextmanager
async def _process(
    services: Services, *words: str, user: str = "owner", scope: str = "read write"
) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = {
        "PATH": "",
        "SEQSTREAM_URL": services.a.url,
        "SEQSTREAM_TOKEN": token(user, scope=scope),
        "DATABASE_URL": services.database_url,
        "REDIS_URL": services.redis.url,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, env=environment, cwd=ROOT,
        stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with asyncio.timeout(30):
            yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def test_the_documented_follow_example_prints_messages(
    services: Services, project: Project
) -> None:
    """`docs/examples/follow.py`: its own message, the ones before, and those that follow."""
    await project.fill(2)
    async with _running(services, "docs/examples/follow.py", project.id, "1") as lines:
        assert await lines.readline() == b"sent as seq 3\n"
        assert await lines.readline() == b"2 owner: x 2\n"
        assert await lines.readline() == b"3 owner: hello from Python\n"
        await project.fill(4)
        assert await lines.readline() == b"4 owner: x 4\n"


async def test_the_documented_snippet_prints_messages(services: Services) -> None:
    """`docs/snippets/python_client.py`: the client in five lines."""
    async with Api(services.a.url, "owner") as api:
        await api.create_project("demo")
        async with _running(services, "docs/snippets/python_client.py") as lines:
            assert await lines.readline() == b"1 hello\n"
            await api.post("demo", "next")
            assert await lines.readline() == b"2 next\n"


class _Chat:
    """What the owner of a project reads, and the documented assistant in it."""

    def __init__(self, services: Services, project: Project, client: Client) -> None:
        self.client = client
        self.events: list[Event] = []
        self._services = services
        self._project = project

    async def follow(self) -> None:
        """Collect events until cancelled."""
        async for event in self.client.follow(self._project.id, after=0):
            self.events.append(event)

    async def ask(self, text: str) -> str:
        """Post a message; return its id."""
        return (await self.client.send(self._project.id, text)).message_id

    async def answers(self, reply_to: str, number: int = 1) -> list[Message]:
        """Wait for the answers to a message."""

        def found() -> list[Message]:
            messages = [event for event in self.events if isinstance(event, Message)]
            return [each for each in messages if _response(each).get("replyTo") == reply_to]

        await wait_until(lambda: len(found()) >= number, timeout_s=20, what="the answer")
        return found()


def _response(message: Message) -> dict[str, Any]:
    return message.metadata.get("response_data") or {}


@pytest.fixture
async def chat(services: Services, project: Project) -> AsyncIterator[_Chat]:
    """A project with a member `bot`."""
    await project.api.add_member(project.id, "bot")
    async with Client(services.b.url, token("owner", scope="read write")) as client:
        chat = _Chat(services, project, client)
        following = asyncio.create_task(chat.follow())
        try:
            yield chat
        finally:
            following.cancel()
            await asyncio.wait([following])


async def test_the_documented_answer_of_the_library_is_written(
    services: Services, chat: _Chat, project: Project
) -> None:
    """`docs/examples/answer_in_library.py`: pieces, then the message; its id is printed."""
    asked = await chat.ask("Show me")
    words = ("docs/examples/answer_in_library.py", project.id, asked, "bot")
    async with _running(services, *words) as lines:
        message_id = (await lines.readline()).decode().strip()
        (message,) = await chat.answers(asked)
    assert any(isinstance(each, Delta) and each.message_id == message_id for each in chat.events)
    assert (message.message_id, message.user_id) == (message_id, "bot")
    assert message.text == "Written with the library."
    assert [part["kind"] for part in _response(message)["parts"]] == ["reasoning"]
