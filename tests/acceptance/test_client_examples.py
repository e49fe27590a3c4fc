"""The documented programs that send, follow and answer run as they are printed."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import sys
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from service.client import AnswerState, Client, Delta, Event, Message
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

    def assistant(self) -> contextlib.AbstractAsyncContextManager[asyncio.subprocess.Process]:
        """Run `docs/examples/assistant.py`."""
        words = ("docs/examples/assistant.py", self._project.id, "bot")
        return _process(self._services, *words, user="bot", scope="read worker")

    async def follow(self) -> None:
        """Collect events until cancelled."""
        async for event in self.client.follow(self._project.id, after=0):
            self.events.append(event)

    async def ask(self, text: str) -> str:
        """Post a message; return its id."""
        return (await self.client.send(self._project.id, text)).message_id

    async def deltas(self, reply_to: str) -> str:
        """Wait for pieces of an answer; return its id."""
        found: list[str] = []

        def begun() -> bool:
            states = [each for each in self.events if isinstance(each, AnswerState)]
            ids = {state.message_id for state in states if state.reply_to == reply_to}
            pieces = [each for each in self.events if isinstance(each, Delta)]
            found[:] = [each.message_id for each in pieces if each.message_id in ids]
            return bool(found)

        await wait_until(begun, what="pieces of the answer")
        return found[0]

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


_LONG = "word " * 5_000


async def test_the_documented_assistant_answers_stops_and_answers_again(
    chat: _Chat, project: Project
) -> None:
    """`docs/examples/assistant.py`: also what was asked before it was started."""
    early = await chat.ask("early")
    async with chat.assistant():
        (message,) = await chat.answers(early)
        assert (message.user_id, message.text) == ("bot", "You said: early")
        assert _response(message)["type"] == "answer"

        await chat.client.regenerate_answer(project.id, message.message_id)
        again = (await chat.answers(early, 2))[1]
        assert (again.text, again.metadata["regenerates"]) == (message.text, message.message_id)

        long = await chat.ask(_LONG)
        other = await chat.ask("meanwhile")
        await chat.client.stop_answer(project.id, await chat.deltas(long))
        (stopped,) = await chat.answers(long)
        assert _response(stopped)["type"] == "answer_stopped"
        assert stopped.text.startswith("You")
        (message,) = await chat.answers(other)
        assert message.text == "You said: meanwhile"
    assert len(await chat.answers(early)) == 2


async def test_the_documented_assistant_survives_its_death(chat: _Chat) -> None:
    """Killed, and started again: it fails what it was writing, and answers what was asked since."""
    async with chat.assistant() as process:
        long = await chat.ask(_LONG)
        await chat.deltas(long)
        process.kill()
        await process.wait()
    later = await chat.ask("later")
    async with chat.assistant():
        (failed,) = await chat.answers(long)
        assert _response(failed)["type"] == "answer_failed"
        assert _response(failed)["reason"] == "the assistant was restarted"
        assert failed.text.startswith("You")
        assert [each.text for each in await chat.answers(later)] == ["You said: later"]


async def test_the_documented_assistant_ends_its_answers_when_it_is_terminated(
    chat: _Chat,
) -> None:
    """SIGTERM: what it was writing fails at once, with the text so far."""
    async with chat.assistant() as process:
        long = await chat.ask(_LONG)
        await chat.deltas(long)
        process.terminate()
        assert await process.wait() == 0
        (failed,) = await chat.answers(long)
    assert _response(failed)["type"] == "answer_failed"
    assert _response(failed)["reason"] == "the assistant failed"


async def test_the_documented_assistant_asks_its_model_once_for_an_answer(
    services: Services, chat: _Chat, project: Project
) -> None:
    """Its own answer's `answer.state` may come before the response to its beginning."""
    program = _loaded("docs/examples/assistant.py")
    seen = asyncio.Event()
    asked: list[str] = []

    async def complete(turns: list[Any]) -> AsyncIterator[str]:
        asked.append(turns[-1].text)
        yield "only "
        await asyncio.sleep(0)
        yield "one"

    class Watched(program.Assistant):  # type: ignore[misc, name-defined]
        async def _take(self, event: Event) -> None:
            await super()._take(event)
            if isinstance(event, AnswerState):
                seen.set()

    program.complete = complete
    async with (
        httpx.AsyncClient(transport=_HoldsBack(seen)) as http,
        Client(services.a.url, token("bot", scope="read worker"), http=http) as client,
    ):
        running = asyncio.create_task(Watched(client, project.id, "bot").run())
        try:
            messages = [(await chat.answers(await chat.ask(text)))[0] for text in ("one", "two")]
        finally:
            running.cancel()
            await asyncio.wait([running])
    assert [message.text for message in messages] == ["only one", "only one"]
    assert asked == ["one", "two"]


class _HoldsBack(httpx.AsyncHTTPTransport):
    """Holds the response to the beginning of an answer back until an event was set."""

    def __init__(self, seen: asyncio.Event) -> None:
        super().__init__()
        self._seen = seen

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        if request.url.path.endswith("/answers"):
            await self._seen.wait()
        return response


def _loaded(path: str) -> Any:
    """Load a program as a module, without running it."""
    spec = importlib.util.spec_from_file_location("documented", ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
