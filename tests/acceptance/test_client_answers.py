"""The Python client writes answers from outside, against real service processes (§5)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import NamedTuple

import httpx
import msgspec
import pytest

from service.client import (
    AccessDenied,
    Answer,
    AnswerSoFar,
    AnswerState,
    Client,
    Conflict,
    Delta,
    Event,
    Message,
    Part,
    Refused,
)
from tests.acceptance.conftest import Project, Services
from tests.support.signing import token
from tests.support.waiting import wait_until


class Room(NamedTuple):
    """A project with a question in it, its owner's client, and that of an assistant outside."""

    project: Project
    question: str
    owner: Client
    bot: Client


def _bot(services: Services, http: httpx.AsyncClient | None = None) -> Client:
    return Client(services.a.url, token("bot", scope="read worker"), http=http)


@pytest.fixture
async def room(services: Services, project: Project) -> AsyncIterator[Room]:
    """The owner reads from one process, the assistant writes to the other."""
    await project.api.add_member(project.id, "bot")
    async with (
        Client(services.b.url, token("owner", scope="read write")) as owner,
        _bot(services) as bot,
    ):
        question = await owner.send(project.id, "Why?")
        yield Room(project, question.message_id, owner, bot)


@contextlib.asynccontextmanager
async def _following(client: Client, project_id: str) -> AsyncIterator[list[Event]]:
    """Collect what a client is told, from the first message on."""
    events: list[Event] = []

    async def follow() -> None:
        async for event in client.follow(project_id, after=0):
            events.append(event)  # noqa: PERF401 - read while it grows

    task = asyncio.create_task(follow())
    try:
        await wait_until(lambda: any(event.name == "stream.live" for event in events))
        yield events
    finally:
        task.cancel()
        await asyncio.wait([task])


def _so_far(events: list[Event], message_id: str) -> AnswerSoFar:
    answer = AnswerSoFar(message_id)
    for event in events:
        if isinstance(event, Delta | AnswerState):
            answer.apply(event)
    return answer


async def _ended(events: list[Event], message_id: str) -> Message:
    """Wait for the message that an answer becomes."""

    def found() -> list[Message]:
        messages = [event for event in events if isinstance(event, Message)]
        return [message for message in messages if message.message_id == message_id]

    await wait_until(lambda: bool(found()), what="the answer's message")
    (message,) = found()
    return message


async def test_an_answer_is_written_and_read(room: Room) -> None:
    """Pieces as they come, then the message under the same id: the same text and parts."""
    async with _following(room.owner, room.project.id) as events:
        async with room.bot.answer(room.project.id, reply_to=room.question) as answer:
            await answer.write_part("reasoning", {"text": "Let "})
            await answer.write_part("reasoning", {"text": "me see."})
            for word in ("Because ", "it ", "is ", "so \N{GRINNING FACE}."):
                await answer.write(word)
                await asyncio.sleep(0)
            await answer.write_part("tool", {"id": "c1", "output": [1]})
            answer.metadata["model"] = "m"
        message = await _ended(events, answer.message_id)
        so_far = _so_far(events, answer.message_id)
    assert answer.ended is not None
    assert (answer.ended.status, answer.ended.seq) == ("completed", message.seq)
    assert (message.user_id, message.content.type) == ("bot", "assistant")
    assert message.text == so_far.text == "Because it is so \N{GRINNING FACE}."
    assert so_far.parts == [
        Part("reasoning", 0, {"text": "Let me see."}),
        Part("tool", len(message.text), {"id": "c1", "output": [1]}),
    ]
    assert message.metadata["model"] == "m"
    response = message.metadata["response_data"]
    assert (response["type"], response["replyTo"]) == ("answer", room.question)
    assert msgspec.convert(response["parts"], list[Part]) == so_far.parts
    view = await room.owner.answer_state(room.project.id, answer.message_id)
    assert (view.status, view.text, list(view.parts)) == ("completed", message.text, so_far.parts)


async def test_who_joins_late_has_the_whole_answer(room: Room) -> None:
    """§6: `answer.state`, then the pieces that follow."""
    async with room.bot.answer(room.project.id, reply_to=room.question) as answer:
        await answer.write("one ")
        await _is_stored(room, answer, "one ")
        async with _following(room.owner, room.project.id) as events:
            await answer.write("two")
            await wait_until(lambda: _so_far(events, answer.message_id).text == "one two")
    states = [event for event in events if isinstance(event, AnswerState)]
    assert [(state.reply_to, state.user_id) for state in states][:1] == [(room.question, "bot")]


async def _is_stored(room: Room, answer: Answer, text: str) -> None:
    async def stored() -> bool:
        view = await room.owner.answer_state(room.project.id, answer.message_id)
        return view.text == text

    await wait_until(stored, what="the text so far")


async def test_a_member_stops_an_answer(room: Room) -> None:
    """The block is left at a later write; the text so far is the message's."""
    writes = 0
    async with _following(room.owner, room.project.id) as events:
        async with room.bot.answer(room.project.id, reply_to=room.question) as answer:
            await answer.write("half")
            await _is_stored(room, answer, "half")
            await room.owner.stop_answer(room.project.id, answer.message_id)
            while writes < 10_000:
                await answer.write("x")
                await asyncio.sleep(0.01)
                writes += 1
        message = await _ended(events, answer.message_id)
    assert writes < 10_000
    assert message.text == "half"
    assert message.metadata["response_data"]["type"] == "answer_stopped"
    assert answer.ended is not None
    assert (answer.ended.status, answer.ended.seq) == ("stopped", message.seq)


async def test_an_answer_is_written_again(room: Room) -> None:
    """The assistant sees the new one as its own, with nothing written, and goes on with its id."""
    async with room.bot.answer(room.project.id, reply_to=room.question) as first:
        await first.write("first")
    async with _following(room.bot, room.project.id) as events:
        begun = await room.owner.regenerate_answer(room.project.id, first.message_id)
        assert (begun.reply_to, begun.regenerates) == (room.question, first.message_id)
        with pytest.raises(Conflict) as raised:
            await room.owner.regenerate_answer(room.project.id, begun.message_id)
        assert raised.value.code == "ANSWER_IN_PROGRESS"

        def states() -> list[AnswerState]:
            return [event for event in events if isinstance(event, AnswerState)]

        await wait_until(lambda: bool(states()), what="answer.state")
        (state,) = states()
        assert (state.message_id, state.user_id, state.index) == (begun.message_id, "bot", -1)
        async with room.bot.answer(room.project.id, message_id=state.message_id) as second:
            await second.write("second")
        message = await _ended(events, state.message_id)
    assert (message.text, message.metadata["regenerates"]) == ("second", first.message_id)


async def test_an_answer_is_whole_however_often_a_response_is_lost(
    services: Services, room: Room
) -> None:
    """Every second response to the assistant is lost: nothing twice, and nothing is missing."""
    transport = _LosesResponses()
    async with (
        httpx.AsyncClient(transport=transport) as http,
        _bot(services, http) as bot,
        _following(room.owner, room.project.id) as events,
    ):
        async with bot.answer(room.project.id, reply_to=room.question) as answer:
            for number in range(40):
                await answer.write(f"{number} ")
                await asyncio.sleep(0.01)
        message = await _ended(events, answer.message_id)
    assert transport.lost >= 3
    assert message.text == _so_far(events, answer.message_id).text
    assert message.text.split() == [str(number) for number in range(40)]


class _LosesResponses(httpx.AsyncHTTPTransport):
    """Every second request is carried out, and its response is lost."""

    lost = 0
    _requests = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        response = await super().handle_async_request(request)
        self._requests += 1
        if self._requests % 2 == 0:
            return response
        self.lost += 1
        await response.aclose()
        raise httpx.ReadError("lost")


async def test_a_cancelled_block_keeps_what_was_written(room: Room) -> None:
    """The answer has failed, with the text so far."""
    begun = asyncio.Event()
    answers: list[Answer] = []

    async def write() -> None:
        async with room.bot.answer(room.project.id, reply_to=room.question) as answer:
            answers.append(answer)
            await answer.write("half")
            begun.set()
            await asyncio.sleep(1000)

    async with _following(room.owner, room.project.id) as events:
        task = asyncio.create_task(write())
        await begun.wait()
        task.cancel()
        await asyncio.wait([task])
        message = await _ended(events, answers[0].message_id)
    assert message.text == "half"
    assert message.metadata["response_data"]["type"] == "answer_failed"
    assert message.metadata["response_data"]["reason"] == "the assistant failed"


async def test_what_is_refused_is_raised(services: Services, room: Room) -> None:
    """A scope that is missing, no such message or answer, another's answer, one that is over."""
    project_id = room.project.id
    with pytest.raises(AccessDenied):
        await room.owner.answer(project_id, reply_to=room.question).__aenter__()
    with pytest.raises(Refused) as raised:
        await room.bot.answer(project_id, reply_to=room.question[::-1]).__aenter__()
    assert raised.value.status == 404
    async with room.bot.answer(project_id, reply_to=room.question, client_msg_id="c1") as answer:
        await answer.write("mine")
    with pytest.raises(Conflict) as conflict:
        await room.bot.answer(project_id, reply_to=room.question, client_msg_id="c1").__aenter__()
    assert conflict.value.code == "ANSWER_ENDED"
    await room.project.api.add_member(project_id, "other")
    async with Client(services.a.url, token("other", scope="read worker")) as other:
        with pytest.raises(AccessDenied):
            await _write(other, project_id, answer.message_id, "x")


async def _write(client: Client, project_id: str, message_id: str, text: str) -> None:
    async with client.answer(project_id, message_id=message_id) as answer:
        await answer.write(text)


async def test_a_text_above_the_bound_is_refused(room: Room) -> None:
    """413 comes out of the block; the answer has failed with what fitted."""
    async with _following(room.owner, room.project.id) as events:
        begun: list[str] = []

        async def write() -> None:
            async with room.bot.answer(room.project.id, reply_to=room.question) as answer:
                begun.append(answer.message_id)
                await answer.write("fits")
                await _is_stored(room, answer, "fits")
                await answer.write("x" * 70_000)

        with pytest.raises(Refused) as raised:
            await write()
        assert raised.value.code == "PAYLOAD_TOO_LARGE"
        message = await _ended(events, begun[0])
    assert message.text == "fits"
