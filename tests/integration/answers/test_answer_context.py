"""`log.answer(...)`: an answer that user code writes ends as one message, whatever happens."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from streams.answers.answer_context import AnswerWriting
from streams.answers.answer_errors import AnswerHeld, AnswerNotFound, AnswerStopped
from streams.answers.answer_values import AnswerState
from streams.eventlog import EventLog, EventLogConfig
from streams.log.database import Database
from streams.model.errors import InvalidInput
from streams.model.events import Message, NewMessage
from streams.model.ids import EntryId
from tests.integration.conftest import NewProject, OpenLog
from tests.support.waiting import wait_until


async def _question(log: EventLog, project: str) -> Message:
    return await log.append(project, NewMessage(user_id="u", text="why?"))


async def _answer_after(log: EventLog, question: Message) -> Message:
    """Wait for the next message of the question's project."""
    async with asyncio.timeout(20):
        async for event in log.follow(question.project_id, after=question.seq):
            if event.seq is not None:
                return event.message()
    raise AssertionError


def _data(message: Message) -> dict[str, object]:
    data = msgspec.json.decode(message.metadata)["response_data"]
    assert isinstance(data, dict)
    return data


async def _state(log: EventLog, project: str, answer: AnswerWriting) -> AnswerState:
    state = await log.answers.state(project, answer.message_id)
    assert state is not None
    return state


async def test_text_and_parts_become_one_message(open_log: OpenLog, project: str) -> None:
    """§5: pieces in the stream in their order, then the message with the same id."""
    log = await open_log()
    question = await _question(log, project)
    async with log.answer(project, reply_to=question.message_id, user_id="bot") as answer:
        await answer.write_part("reasoning", {"text": "hm"})
        await answer.write("one ")
        await answer.write("two")
        await answer.write_part("tool", {"id": "1", "output": [1]})
    message = await _answer_after(log, question)
    assert (message.message_id, message.parent_id) == (answer.message_id, question.message_id)
    assert (message.user_id, message.content.text) == ("bot", "one two")
    assert (message.content.type, message.content.actor_type) == ("assistant", "assistant")
    assert _data(message) == {
        "type": "answer",
        "replyTo": question.message_id,
        "truncated": False,
        "parts": [
            {"kind": "reasoning", "offset": 0, "data": {"text": "hm"}},
            {"kind": "tool", "offset": 7, "data": {"id": "1", "output": [1]}},
        ],
    }
    entries = await log.window.read_after(project, EntryId(0, 0), count=100)
    pieces = [
        msgspec.json.decode(each.data)["content"]
        for each in entries
        if each.event == "message.delta"
    ]
    message_id = answer.message_id
    assert pieces == [
        {"messageId": message_id, "index": 0, "kind": "reasoning", "data": {"text": "hm"}},
        {"messageId": message_id, "index": 1, "kind": "text", "delta": "one two"},
        {
            "messageId": message_id,
            "index": 2,
            "kind": "tool",
            "data": {"id": "1", "output": [1]},
        },
    ]


async def test_a_block_that_raises_fails_the_answer_and_keeps_its_text(
    open_log: OpenLog, project: str
) -> None:
    """The exception goes on; its text is not shown to anybody."""
    log = await open_log()
    question = await _question(log, project)
    with pytest.raises(RuntimeError, match="secret"):  # noqa: PT012
        async with log.answer(project, reply_to=question.message_id, user_id="bot") as answer:
            await answer.write("half")
            raise RuntimeError("secret")
    message = await _answer_after(log, question)
    assert message.content.text == "half"
    assert _data(message) == {
        "type": "answer_failed", "replyTo": question.message_id, "reason": "the assistant failed",
    }  # fmt: skip


async def test_a_cancelled_block_ends_the_answer(open_log: OpenLog, project: str) -> None:
    """The cancellation goes on once the answer has ended."""
    log = await open_log()
    question = await _question(log, project)
    has_written = asyncio.Event()

    async def write() -> None:
        async with log.answer(project, reply_to=question.message_id, user_id="bot") as answer:
            await answer.write("half")
            has_written.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(write())
    await has_written.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    message = await _answer_after(log, question)
    assert (message.content.text, _data(message)["type"]) == ("half", "answer_failed")


async def test_a_stop_from_another_process_raises_in_the_writer(
    open_log: OpenLog, project: str
) -> None:
    """§5: by any process; the block ends quietly, with the text so far."""
    log, other = await open_log(), await open_log()
    question = await _question(log, project)
    async with log.answer(project, reply_to=question.message_id, user_id="bot") as answer:
        await answer.write("half")
        await other.answers.stop(project, answer.message_id, "who")
        await asyncio.wait_for(answer.stopped(), 10)
        with pytest.raises(AnswerStopped):
            await answer.write("more")
        await answer.write("more")
    message = await _answer_after(log, question)
    assert message.content.text == "half"
    assert _data(message) == {
        "type": "answer_stopped", "replyTo": question.message_id, "stoppedBy": "who",
    }  # fmt: skip


async def test_an_answer_of_a_dead_process_is_ended_by_another(
    open_log: OpenLog, project: str, database: Database
) -> None:
    """With all that any reader was shown."""
    config = EventLogConfig(answer_lease_s=0.3)
    log = await open_log(EventLogConfig(answer_lease_s=3600))
    question = await _question(log, project)
    writing = log.answer(project, reply_to=question.message_id, user_id="bot")
    answer = await writing.__aenter__()
    await answer.write("shown")
    await answer.write_part("data", 1)

    async def is_stored() -> bool:
        return (await _state(log, project, answer)).index == 1

    await wait_until(is_stored, what="the pieces")
    # From here on the process does nothing more for it.
    log.answers._open.clear()
    await database.execute("UPDATE answers SET lease_until = now() WHERE project_id = $1", project)
    await open_log(config)
    message = await _answer_after(log, question)
    assert message.content.text == "shown"
    assert _data(message) == {
        "type": "answer_failed",
        "replyTo": question.message_id,
        "reason": "the process that was answering has died",
        "parts": [{"kind": "data", "offset": 5, "data": 1}],
    }


async def test_only_messages_of_the_project_are_answered(
    open_log: OpenLog, new_project: NewProject
) -> None:
    """Another project's message, an unknown one and no id at all."""
    log = await open_log()
    one, two = await new_project(), await new_project()
    question = await _question(log, one)
    for reply_to in (question.message_id, "8e1a1c1c-5a53-4b21-9c43-2f0f5f0f5f0f", "x"):
        with pytest.raises(AnswerNotFound):
            async with log.answer(two, reply_to=reply_to, user_id="bot"):
                raise AssertionError
    assert await log.head(two) == 0


async def test_a_client_msg_id_answers_once(open_log: OpenLog, project: str) -> None:
    """A writer that was restarted does not answer the same message again."""
    log = await open_log()
    question = await _question(log, project)

    async def write(text: str) -> None:
        async with log.answer(
            project, reply_to=question.message_id, user_id="bot", client_msg_id="c1"
        ) as answer:
            await answer.write(text)

    await write("first")
    with pytest.raises(AnswerHeld):
        await write("second")
    assert await log.head(project) == 2


async def test_what_is_no_part_is_refused(open_log: OpenLog, project: str) -> None:
    """And the answer goes on."""
    log = await open_log()
    question = await _question(log, project)
    async with log.answer(project, reply_to=question.message_id, user_id="bot") as answer:
        with pytest.raises(InvalidInput, match="kind"):
            await answer.write_part("text", {})
        with pytest.raises(InvalidInput, match="data"):
            await answer.write_part("data", object())
        await answer.write("fine")
    assert (await _answer_after(log, question)).content.text == "fine"


async def test_an_answer_after_another_names_it(open_log: OpenLog, project: str) -> None:
    """§5 `regenerate`: `metadata.regenerates`, and the same message is answered."""
    log = await open_log()
    question = await _question(log, project)
    async with log.answer(project, reply_to=question.message_id, user_id="bot") as answer:
        await answer.write("first")
    before = (await _state(log, project, answer)).answer
    begun = await log.answers.begin_again(before, "asks", client_msg_id="again")
    assert begun.is_new
    assert (await log.answers.begin_again(before, "asks", client_msg_id="again")).is_new is False
    await log.answers.end(log.answers.open(begun.answer), reason=None)
    message = (await log.history(project, after=2)).messages[0]
    assert message.message_id == begun.answer.id
    assert (message.user_id, message.parent_id) == ("asks", question.message_id)
    metadata = msgspec.json.decode(message.metadata)
    assert metadata["regenerates"] == answer.message_id
