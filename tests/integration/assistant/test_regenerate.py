"""docs/protocol.md §5: another answer to the same message, by the assistant of this process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from service.access.limits import Slots
from service.assistant.answer_desk import AnswerDesk
from service.assistant.chat_completions import ChatCompletions
from service.http.api_errors import ApiError
from service.telemetry.metrics import Metrics
from streams.answers.answer_errors import AnswerInProgress
from streams.answers.answer_values import Answer, Begun
from streams.eventlog import EventLog
from streams.model.errors import IdempotencyMismatch
from streams.model.events import Message, NewMessage
from tests.integration.conftest import OpenLog
from tests.support.completions_server import DONE, CompletionsServer, chunk


@contextlib.asynccontextmanager
async def _desk(log: EventLog, url: str, *, per_user: int = 0) -> AsyncIterator[AnswerDesk]:
    desk = AnswerDesk(
        log,
        ChatCompletions(url, "m", None, timeout_s=60),
        Slots(per_user=per_user, per_project=0, in_all=0),
        Metrics(CollectorRegistry()),
        lease_s=30,
        timeout_s=60,
    )
    try:
        yield desk
    finally:
        await desk.drain()


async def _begin(desk: AnswerDesk, project: str, text: str = "why?") -> Begun:
    question = NewMessage(user_id="asks", text=text, mode="plan")
    return await desk.start(project, question, stream=True)


async def _row(log: EventLog, answer: Answer) -> Answer:
    state = await log.answers.state(answer.project_id, answer.id)
    assert state is not None
    return state.answer


async def _message(log: EventLog, desk: AnswerDesk, answer: Answer) -> Message:
    """Wait for the end of an answer that was begun again."""
    task = desk._tasks.get(answer.id)
    if task is not None:
        await task
    end_seq = (await _row(log, answer)).end_seq
    assert end_seq is not None
    return (await log.history(answer.project_id, after=end_seq - 1, limit=1)).messages[0]


async def test_the_same_message_is_answered_again(open_log: OpenLog, project: str) -> None:
    """With the conversation before it, not with the answers since; the one before is named."""
    log = await open_log()
    async with CompletionsServer([chunk("one"), DONE]) as endpoint:
        async with _desk(log, endpoint.url) as desk:
            begun = await _begin(desk, project)
            await desk.wait(begun.answer)
            await desk.wait((await _begin(desk, project, "another")).answer)
            endpoint.answer_with([chunk("two"), DONE])
            before = await _row(log, begun.answer)
            again = await desk.regenerate(before, "bob", client_msg_id=None)
            message = await _message(log, desk, again.answer)
            third = await desk.regenerate(await _row(log, again.answer), "bob", client_msg_id=None)
            last = await _message(log, desk, third.answer)
        assert [turn["content"] for turn in endpoint.requests[0]["messages"]] == ["why?"]
    assert (message.content.text, message.parent_id) == ("two", begun.answer.reply_to)
    assert (message.user_id, message.message_id) == ("bob", again.answer.id)
    metadata = msgspec.json.decode(message.metadata)
    assert metadata["regenerates"] == begun.answer.id
    assert metadata["response_data"]["replyTo"] == begun.answer.reply_to
    assert msgspec.json.decode(last.metadata)["regenerates"] == again.answer.id


async def test_an_answer_in_progress_is_not_written_again(open_log: OpenLog, project: str) -> None:
    """It is stopped first; nothing is begun, and no place is taken."""
    log = await open_log()
    async with CompletionsServer([chunk("one"), DONE], pause_before=1) as endpoint:
        async with _desk(log, endpoint.url, per_user=2) as desk:
            begun = await _begin(desk, project)
            for _ in range(3):
                with pytest.raises(AnswerInProgress):
                    await desk.regenerate(begun.answer, "asks", client_msg_id=None)
            endpoint.go_on.set()
            await desk.wait(begun.answer)
    assert await log.head(project) == 2


async def test_a_repeat_begins_nothing(open_log: OpenLog, project: str) -> None:
    """One client_msg_id, one answer; after another answer it is a mismatch."""
    log = await open_log()
    async with CompletionsServer([chunk("one"), DONE]) as endpoint:
        async with _desk(log, endpoint.url) as desk:
            begun = await _begin(desk, project)
            await desk.wait(begun.answer)
            before = await _row(log, begun.answer)
            first = await desk.regenerate(before, "bob", client_msg_id="c")
            again = await desk.regenerate(before, "bob", client_msg_id="c")
            assert (first.is_new, again.is_new, again.answer.id) == (True, False, first.answer.id)
            await _message(log, desk, first.answer)
            with pytest.raises(IdempotencyMismatch):
                await desk.regenerate(await _row(log, first.answer), "bob", client_msg_id="c")
    assert await log.head(project) == 3


async def test_answers_that_are_written_again_count_for_the_limit(
    open_log: OpenLog, project: str
) -> None:
    """§6 Limits."""
    log = await open_log()
    async with CompletionsServer([chunk("one"), DONE]) as endpoint:
        async with _desk(log, endpoint.url, per_user=1) as desk:
            begun = await _begin(desk, project)
            await desk.wait(begun.answer)
            before = await _row(log, begun.answer)
            endpoint.answer_with([chunk("one"), DONE], pause_before=1)
            await desk.regenerate(before, "bob", client_msg_id=None)
            with pytest.raises(ApiError) as refused:
                await desk.regenerate(before, "bob", client_msg_id=None)
            assert refused.value.status == 429
            assert (await desk.regenerate(before, "eve", client_msg_id=None)).is_new
            endpoint.go_on.set()
