"""docs/protocol.md §5: kept text and stops, between two event logs as between two processes.

The assistant's endpoint is a real server that pauses in the middle of the answer.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from service.access.limits import Slots
from service.assistant import answer_writer
from service.assistant.answer_desk import AnswerDesk
from service.assistant.assistants import Assistant, Turn
from service.assistant.chat_completions import ChatCompletions
from service.operate.embedded import RedisServer
from service.telemetry.metrics import Metrics
from streams.answers import answer_leases
from streams.answers.answer_values import AnswerState, Begun
from streams.answers.pieces import Piece, text_piece
from streams.eventlog import EventLog, EventLogConfig
from streams.log.database import Database
from streams.model.events import Message, NewMessage
from tests.integration.conftest import NewProject, OpenLog
from tests.support.completions_server import DONE, CompletionsServer, chunk
from tests.support.waiting import wait_until

_PIECES = """
SELECT body FROM answer_pieces
 WHERE answer_id IN (SELECT id FROM answers WHERE project_id = $1)
"""
HALF = "half of it "
REST = "and the rest"


@pytest.fixture
async def endpoint() -> AsyncIterator[CompletionsServer]:
    """An endpoint that sends half of its answer and then pauses."""
    async with CompletionsServer([chunk(HALF), chunk(REST), DONE], pause_before=1) as server:
        yield server


@pytest.fixture(autouse=True)
def _frequent_renewals(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answer_leases, "RENEW_EVERY_S", 0.05)


def _desk(log: EventLog, assistant: Assistant) -> AnswerDesk:
    slots = Slots(per_user=0, per_project=0, in_all=0)
    metrics = Metrics(CollectorRegistry())
    return AnswerDesk(log, assistant, slots, metrics, lease_s=30, timeout_s=600)


@contextlib.asynccontextmanager
async def _running_desk(log: EventLog, assistant: Assistant) -> AsyncIterator[AnswerDesk]:
    desk = _desk(log, assistant)
    try:
        yield desk
    finally:
        await desk.drain()


def _completions(endpoint: CompletionsServer) -> ChatCompletions:
    return ChatCompletions(endpoint.url, "m", None, timeout_s=600)


async def _begin(desk: AnswerDesk, project: str, *, stream: bool = True) -> Begun:
    question = NewMessage(user_id="asks", text="why?", mode="plan")
    return await desk.start(project, question, stream=stream)


async def _state(log: EventLog, begun: Begun) -> AnswerState:
    state = await log.answers.state(begun.answer.project_id, begun.answer.id)
    assert state is not None
    return state


async def _stored(log: EventLog, begun: Begun, text: str = HALF) -> None:
    """Wait until the text is stored."""

    async def is_stored() -> bool:
        return (await _state(log, begun)).text == text

    await wait_until(is_stored, what="the text")


def _data(message: Message) -> dict[str, object]:
    data = msgspec.json.decode(message.metadata)["response_data"]
    assert isinstance(data, dict)
    return data


def _only_by_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the renewals so rare that a stop must be heard."""
    monkeypatch.setattr(answer_leases, "RENEW_EVERY_S", 3600.0)
    monkeypatch.setattr(answer_leases, "_LOOK_EVERY_S", 3600.0)


class _Rounds:
    """Counts the renewals of a log that begin."""

    def __init__(self, log: EventLog) -> None:
        self.begun = 0
        self._renew = log.answers.rows.renew
        log.answers.rows.renew = self.renew  # type: ignore[method-assign]

    async def renew(
        self, answer_ids: Sequence[str], worker_id: str, *, lease_s: float
    ) -> Mapping[str, str | None]:
        self.begun += 1
        return await self._renew(answer_ids, worker_id, lease_s=lease_s)


async def test_a_stop_from_another_process_is_heard_through_redis(
    open_log: OpenLog, project: str, endpoint: CompletionsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """§5: the answer ends with the text so far, and names who stopped it; upstream is closed."""
    _only_by_redis(monkeypatch)
    logs = await open_log(), await open_log()
    async with _running_desk(logs[0], _completions(endpoint)) as writer:
        other = _desk(logs[1], _completions(endpoint))
        begun = await _begin(writer, project)
        await wait_until(lambda: logs[0].tails.get(project) is not None, what="a tail")
        await wait_until(
            lambda: b"message.delta" in b"".join(logs[0].tails.all()[0].frames(0)), what="a piece"
        )
        state = await logs[1].answers.stop(project, begun.answer.id, "stops")
        assert state is not None
        await asyncio.wait_for(endpoint.disconnected.wait(), 10)
        message = await other.wait(begun.answer)
        await other.drain()
    assert message.content.text == HALF
    assert _data(message) == {
        "type": "answer_stopped",
        "replyTo": begun.answer.reply_to,
        "stoppedBy": "stops",
    }
    assert (message.message_id, message.parent_id) == (begun.answer.id, begun.answer.reply_to)


async def test_a_stop_while_redis_is_away_is_noticed_by_the_next_renewal(
    open_log: OpenLog, project: str, endpoint: CompletionsServer, own_redis: RedisServer
) -> None:
    """§5: also with Redis away. Two renewals at most begin between the stop and the end."""
    logs = [await open_log(redis_url=own_redis.url) for _ in range(2)]
    async with _running_desk(logs[0], _completions(endpoint)) as writer:
        other = _desk(logs[1], _completions(endpoint))
        begun = await _begin(writer, project)
        await _stored(logs[0], begun)
        own_redis.kill()
        rounds = _Rounds(logs[0])
        await logs[1].answers.stop(project, begun.answer.id, "stops")
        before = rounds.begun
        await asyncio.wait_for(endpoint.disconnected.wait(), 10)
        assert rounds.begun - before <= 2
        message = await other.wait(begun.answer)
        await other.drain()
    assert (message.content.text, _data(message)["type"]) == (HALF, "answer_stopped")


async def test_a_stop_is_idempotent_and_names_the_first_user(
    open_log: OpenLog, project: str, endpoint: CompletionsServer
) -> None:
    """§4: again it is the same; after the end nothing changes and the status is told."""
    log = await open_log()
    async with _running_desk(log, _completions(endpoint)) as desk:
        begun = await _begin(desk, project)
        first, second = await asyncio.gather(
            log.answers.stop(project, begun.answer.id, "first"),
            log.answers.stop(project, begun.answer.id, "second"),
        )
        assert first is not None
        assert second is not None
        assert first.is_new is not second.is_new
        message = await desk.wait(begun.answer)
        state = await log.answers.stop(project, begun.answer.id, "late")
        assert state is not None
    assert (state.status, state.is_new) == ("stopped", False)
    assert _data(message)["stoppedBy"] == ("first" if first.is_new else "second")
    assert await log.head(project) == message.seq


async def test_a_stop_after_the_end_changes_nothing(
    open_log: OpenLog, project: str, endpoint: CompletionsServer
) -> None:
    """§4: a completed answer stays completed."""
    endpoint.go_on.set()
    log = await open_log()
    async with _running_desk(log, _completions(endpoint)) as desk:
        begun = await _begin(desk, project)
        message = await desk.wait(begun.answer)
        state = await log.answers.stop(project, begun.answer.id, "late")
    assert state is not None
    assert (state.status, state.is_new) == ("completed", False)
    assert (await _state(log, begun)).text == HALF + REST
    assert _data(message) == {
        "type": "answer", "replyTo": begun.answer.reply_to, "truncated": False,
    }  # fmt: skip


async def test_only_the_projects_own_answers_can_be_stopped(
    open_log: OpenLog, new_project: NewProject, endpoint: CompletionsServer
) -> None:
    """§4: the id of another project's answer, of a message or of nothing finds no answer."""
    log = await open_log()
    one, two = await new_project(), await new_project()
    async with _running_desk(log, _completions(endpoint)) as desk:
        begun = await _begin(desk, one)
        question = begun.appended.message.message_id
        for project_id, message_id in ((two, begun.answer.id), (one, question), (one, "x")):
            assert await log.answers.stop(project_id, message_id, "stops") is None
            assert await log.answers.state(project_id, message_id) is None
        endpoint.go_on.set()
        assert _data(await desk.wait(begun.answer))["type"] == "answer"


async def test_an_answer_stopped_before_its_first_piece_has_no_text(
    open_log: OpenLog, project: str, endpoint: CompletionsServer
) -> None:
    """§5: the text so far is none; the next question's conversation has no empty turn."""
    log = await open_log()
    endpoint.answer_with([chunk(HALF), DONE], pause_before=0)
    async with _running_desk(log, _completions(endpoint)) as desk:
        begun = await _begin(desk, project)
        await log.answers.stop(project, begun.answer.id, "stops")
        message = await desk.wait(begun.answer)
        assert (message.content.text, _data(message)["type"]) == ("", "answer_stopped")
        endpoint.answer_with([chunk(HALF), DONE])
        await desk.wait((await _begin(desk, project)).answer)
    (asked,) = endpoint.requests
    assert [turn["content"] for turn in asked["messages"]] == ["why?", "why?"]


async def test_the_text_so_far_is_stored_and_removed_at_the_end(
    open_log: OpenLog, project: str, endpoint: CompletionsServer, database: Database
) -> None:
    """§5, G8: a copy in the row serves whoever takes over, and is gone with the message there."""
    log = await open_log()
    async with _running_desk(log, _completions(endpoint)) as desk:
        begun = await _begin(desk, project)
        await _stored(log, begun)
        state = await _state(log, begun)
        assert (state.status, state.index) == ("in_progress", 0)
        assert [row["body"] for row in await database.fetch(_PIECES, project)] == [HALF]
        endpoint.go_on.set()
        await desk.wait(begun.answer)
    assert await database.fetch(_PIECES, project) == []
    assert (await _state(log, begun)).text == HALF + REST


async def test_a_worker_that_lost_its_answer_closes_its_request(
    open_log: OpenLog, project: str, endpoint: CompletionsServer, database: Database
) -> None:
    """A process that was taken for dead does not go on asking, and appends nothing."""
    log = await open_log()
    async with _running_desk(log, _completions(endpoint)) as desk:
        begun = await _begin(desk, project)
        await _stored(log, begun)
        await database.execute(
            "UPDATE answers SET worker_id = 'another' WHERE project_id = $1", project
        )
        await asyncio.wait_for(endpoint.disconnected.wait(), 10)
    assert await log.head(project) == begun.appended.message.seq


class _Stubborn:
    """An assistant that does not end when it is told to."""

    def __init__(self) -> None:
        self.may_end = asyncio.Event()

    async def answer(self, turns: Sequence[Turn]) -> AsyncGenerator[Piece, None]:
        yield text_piece(HALF)
        try:
            await asyncio.Event().wait()
        finally:
            await self.may_end.wait()

    async def close(self) -> None:
        self.may_end.set()


async def test_an_assistant_that_does_not_end_delays_no_stop(
    open_log: OpenLog, project: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """§5: the answer ends without it."""
    monkeypatch.setattr(answer_writer, "_CLOSE_S", 0.01)
    log = await open_log()
    assistant = _Stubborn()
    async with _running_desk(log, assistant) as desk:
        begun = await _begin(desk, project)
        await _stored(log, begun)
        await log.answers.stop(project, begun.answer.id, "stops")
        message = await desk.wait(begun.answer)
        assert (message.content.text, _data(message)["type"]) == (HALF, "answer_stopped")
        assistant.may_end.set()


async def test_a_locked_project_delays_no_renewal(
    open_log: OpenLog, project: str, new_project: NewProject, database: Database
) -> None:
    """Ending the answer of a dead process waits for the project's row; other answers go on."""
    log = await open_log(EventLogConfig(answer_lease_s=0.5))
    assistant = _Stubborn()
    locked = await new_project()
    question = NewMessage(user_id="asks", text="why?", mode="plan")
    dead = await log.answers.rows.begin(locked, question, "dead", lease_s=3600)
    expire = "UPDATE answers SET lease_until = now() WHERE id = $1"
    async with contextlib.AsyncExitStack() as stack:
        session = await stack.enter_async_context(database.transaction())
        await session.execute(f"SELECT FROM projects WHERE id = '{locked}' FOR UPDATE")
        desk = await stack.enter_async_context(_running_desk(log, assistant))
        await database.execute(expire, dead.answer.id)
        taken = "SELECT worker_id <> 'dead' AS taken FROM answers WHERE id = $1"

        async def is_taken() -> bool:
            return bool((await database.fetch(taken, dead.answer.id))[0]["taken"])

        await wait_until(is_taken, what="the take-over")
        begun = await _begin(desk, project)
        await _stored(log, begun)
        await log.answers.stop(project, begun.answer.id, "stops")
        assert (await desk.wait(begun.answer)).content.text == HALF
        assistant.may_end.set()
