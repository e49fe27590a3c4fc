"""docs/protocol.md §5: assistants outside write answers in steps that any process can take."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from streams.answers.answer_errors import (
    AnswerEnded,
    AnswerHeld,
    AnswerInProgress,
    AnswerNotFound,
    IndexGap,
    TooManyAnswers,
)
from streams.answers.answer_values import Answer, AnswerState, OutsideBounds
from streams.answers.pieces import Piece, part_piece, text_piece
from streams.eventlog import EventLog, EventLogConfig
from streams.log.database import Database
from streams.model.errors import IdempotencyMismatch, InvalidInput, PayloadTooLarge
from streams.model.events import Message, NewMessage
from streams.model.ids import EntryId
from tests.integration.conftest import OpenLog
from tests.support.waiting import wait_until

UNKNOWN = "00000000-0000-4000-8000-000000000000"


def _bounded(**bounds: int | float) -> EventLogConfig:
    return EventLogConfig(outside_bounds=OutsideBounds(**bounds))  # type: ignore[arg-type]


async def _question(log: EventLog, project: str) -> Message:
    return await log.append(project, NewMessage(user_id="u", text="why?"))


async def _begun(log: EventLog, project: str, user_id: str = "bot") -> Answer:
    question = await _question(log, project)
    begun = await log.outside_answers.begin(project, question.message_id, user_id)
    assert begun.is_new
    return begun.answer


async def _state(log: EventLog, answer: Answer) -> AnswerState:
    state = await log.answers.state(answer.project_id, answer.id)
    assert state is not None
    return state


async def _message(log: EventLog, answer: Answer) -> Message:
    (message,) = await log.log.read(answer.project_id, after=answer.question_seq)
    assert message.message_id == answer.id
    return message


def _data(message: Message) -> Any:
    return msgspec.json.decode(message.metadata)["response_data"]


def _texts(*deltas: str) -> list[Piece]:
    return [text_piece(delta) for delta in deltas]


async def _deltas(log: EventLog, project: str) -> list[Any]:
    entries = await log.window.read_after(project, EntryId(0, 0), count=1000)
    return [
        msgspec.json.decode(each.data)["content"]
        for each in entries
        if each.event == "message.delta"
    ]


async def _expire(database: Database, answer: Answer) -> None:
    await database.execute(
        "UPDATE answers SET lease_until = now() - interval '1 s' WHERE id = $1", answer.id
    )


async def test_steps_may_be_taken_in_any_process(open_log: OpenLog, project: str) -> None:
    """§5: pieces that alternate between processes are in the stream in their order."""
    logs = [await open_log(), await open_log()]
    answer = await _begun(logs[0], project)
    for index in range(20):
        outside = logs[index % 2].outside_answers
        received = await outside.receive(project, answer.id, "bot", index, _texts(f"{index} "))
        assert (received.next_index, received.is_stop_requested) == (index + 1, False)
    text = "".join(f"{index} " for index in range(20))
    deltas = await _deltas(logs[0], project)
    assert [each["index"] for each in deltas] == list(range(20))
    assert "".join(each["delta"] for each in deltas) == text
    ended = await logs[1].outside_answers.end(project, answer.id, "bot", "completed")
    message = await _message(logs[0], answer)
    assert (ended.status, ended.answer.end_seq) == ("completed", message.seq)
    assert (message.content.text, message.user_id, message.parent_id) == (
        text,
        "bot",
        answer.reply_to,
    )
    assert _data(message) == {"type": "answer", "replyTo": answer.reply_to, "truncated": False}


async def test_what_a_request_brings_is_joined(open_log: OpenLog, project: str) -> None:
    """§5: adjacent pieces that join are one in the stream; indexes of the two sides differ."""
    log = await open_log()
    answer = await _begun(log, project)
    reasoning = [part_piece("reasoning", {"text": text}) for text in ("a", "b")]
    received = await log.outside_answers.receive(
        project, answer.id, "bot", 0, [*_texts("x", "", "y"), *reasoning]
    )
    assert received.next_index == 5
    state = await _state(log, answer)
    assert (state.index, state.text) == (1, "xy")
    assert msgspec.json.encode(state.parts) == (
        b'[{"kind":"reasoning","offset":2,"data":{"text":"ab"}}]'
    )
    assert [each["index"] for each in await _deltas(log, project)] == [0, 1]


async def test_known_pieces_are_dropped(open_log: OpenLog, project: str) -> None:
    """§5: a repeat, whole or in part, stores and publishes what is new alone."""
    log = await open_log()
    answer = await _begun(log, project)
    outside = log.outside_answers
    for _ in range(2):
        received = await outside.receive(project, answer.id, "bot", 0, _texts("a", "b"))
        assert received.next_index == 2
    assert len(await _deltas(log, project)) == 1
    received = await outside.receive(project, answer.id, "bot", 1, _texts("b", "c"))
    assert received.next_index == 3
    assert (await _state(log, answer)).text == "abc"


async def test_a_gap_says_what_is_expected(open_log: OpenLog, project: str) -> None:
    """§5: nothing of a request after a hole is stored."""
    log = await open_log()
    answer = await _begun(log, project)
    await log.outside_answers.receive(project, answer.id, "bot", 0, _texts("a"))
    with pytest.raises(IndexGap) as gap:
        await log.outside_answers.receive(project, answer.id, "bot", 2, _texts("c"))
    assert gap.value.expected == 1
    assert (await _state(log, answer)).text == "a"


async def test_the_same_pieces_at_once_are_stored_once(open_log: OpenLog, project: str) -> None:
    """§5: requests with one index race in two processes, of different lengths."""
    logs = [await open_log(), await open_log()]
    answer = await _begun(logs[0], project)
    pieces = [part_piece("reasoning", {"text": str(number)}) for number in range(8)]
    results = await asyncio.gather(
        *(
            logs[number % 2].outside_answers.receive(project, answer.id, "bot", 0, pieces[:length])
            for number, length in enumerate((3, 8, 5, 8, 1, 6))
        )
    )
    assert max(each.next_index for each in results) == 8
    published = [
        msgspec.json.decode(piece.data)["text"]
        for each in sorted(results, key=lambda each: each.first_index)
        for piece in each.pieces
    ]
    assert "".join(published) == "01234567"
    state = await _state(logs[0], answer)
    assert [msgspec.json.decode(part.data) for part in state.parts] == [{"text": "01234567"}]


async def test_the_size_of_parts_is_exact_when_requests_race(
    open_log: OpenLog, project: str, database: Database
) -> None:
    """§5: of parts that join, the last piece that counts is the one stored before, not earlier."""
    logs = [await open_log(), await open_log()]
    answer = await _begun(logs[0], project)
    await logs[0].outside_answers.receive(project, answer.id, "bot", 0, _texts("x"))
    part = part_piece("reasoning", {"text": "y" * 50})

    async def until_taken(log: EventLog, index: int) -> None:
        while True:
            try:
                await log.outside_answers.receive(project, answer.id, "bot", index, [part])
                return
            except IndexGap:
                await asyncio.sleep(0)

    await asyncio.gather(*(until_taken(logs[index % 2], index) for index in range(1, 9)))
    (row,) = await database.fetch("SELECT parts_bytes FROM answers WHERE id = $1", answer.id)
    assert row["parts_bytes"] == len(part.data) + 64 + 7 * 50


async def test_an_answer_begins_once_for_a_client_msg_id(open_log: OpenLog, project: str) -> None:
    """§4: repeats in two processes at once return the first, as it is now."""
    logs = [await open_log(), await open_log()]
    question = await _question(logs[0], project)
    begun = await asyncio.gather(
        *(
            log.outside_answers.begin(project, question.message_id, "bot", client_msg_id="c")
            for log in logs * 3
        )
    )
    assert sum(each.is_new for each in begun) == 1
    assert len({each.answer.id for each in begun}) == 1
    answer = begun[0].answer
    await logs[0].outside_answers.receive(project, answer.id, "bot", 0, _texts("a", "b"))
    again = await logs[1].outside_answers.begin(
        project, question.message_id, "bot", client_msg_id="c"
    )
    assert (again.answer.id, again.received, again.status) == (answer.id, 2, "in_progress")


async def test_a_client_msg_id_belongs_to_one_message_and_worker(
    open_log: OpenLog, project: str
) -> None:
    """§4: another message under it is refused; another worker's is another."""
    log = await open_log()
    begin = log.outside_answers.begin
    first, second = await _question(log, project), await _question(log, project)
    begun = await begin(project, first.message_id, "bot", client_msg_id="c")
    with pytest.raises(IdempotencyMismatch):
        await begin(project, second.message_id, "bot", client_msg_id="c")
    other = await begin(project, first.message_id, "other", client_msg_id="c")
    assert other.is_new
    assert other.answer.id != begun.answer.id
    with pytest.raises(InvalidInput):
        await begin(project, first.message_id, "bot", client_msg_id="a\nb")


@pytest.mark.parametrize("reply_to", [UNKNOWN, "no-uuid"])
async def test_only_messages_of_the_project_are_answered(
    open_log: OpenLog, project: str, reply_to: str
) -> None:
    """§4: an unknown message is refused, as one of another project is."""
    log = await open_log()
    with pytest.raises(AnswerNotFound):
        await log.outside_answers.begin(project, reply_to, "bot")


async def test_an_answer_belongs_to_its_worker(open_log: OpenLog, project: str) -> None:
    """§4: nobody else sends pieces or ends it, and none of the service's own is written outside."""
    log = await open_log()
    answer = await _begun(log, project)
    own = await log.answers.begin_reply(project, answer.reply_to, "bot")
    outside = log.outside_answers
    for answer_id, user_id in ((answer.id, "other"), (own.answer.id, "bot")):
        with pytest.raises(AnswerHeld):
            await outside.receive(project, answer_id, user_id, 0, _texts("a"))
        with pytest.raises(AnswerHeld):
            await outside.end(project, answer_id, user_id, "completed")
    for answer_id in (UNKNOWN, "no-uuid"):
        with pytest.raises(AnswerNotFound):
            await outside.receive(project, answer_id, "bot", 0, _texts("a"))
    with pytest.raises(AnswerNotFound):
        await outside.end("another-project", answer.id, "bot", "completed")
    assert (await _state(log, answer)).text == ""


async def test_the_bounds_hold_over_processes(open_log: OpenLog, project: str) -> None:
    """Answers under way of a project and of a worker, begun at once in two processes."""
    config = _bounded(per_project=4, per_worker=3)
    logs = [await open_log(config), await open_log(config)]
    question = await _question(logs[0], project)

    async def begin(log: EventLog, user_id: str) -> bool:
        try:
            await log.outside_answers.begin(project, question.message_id, user_id)
        except TooManyAnswers:
            return False
        return True

    assert sum(await asyncio.gather(*(begin(log, f"bot of {project}") for log in logs * 3))) == 3
    assert sum(await asyncio.gather(*(begin(log, f"two of {project}") for log in logs * 3))) == 1


async def test_members_cannot_take_all_places(open_log: OpenLog, project: str) -> None:
    """Answers that they ask for again are a quarter of the project's at most."""
    log = await open_log(_bounded(per_project=8))
    answer = await _begun(log, project)
    await log.outside_answers.end(project, answer.id, "bot", "completed", text="first")
    before = (await _state(log, answer)).answer
    for _ in range(2):
        await log.outside_answers.begin_again(before, "alice")
    with pytest.raises(TooManyAnswers):
        await log.outside_answers.begin_again(before, "bob")
    assert (await log.outside_answers.begin(project, answer.reply_to, "bot")).is_new


async def test_text_and_parts_have_bounds(open_log: OpenLog, project: str) -> None:
    """§4: the piece that does not fit is named, and nothing of its request is stored."""
    log = await open_log(_bounded(max_text_bytes=10))
    answer = await _begun(log, project)
    receive = log.outside_answers.receive
    await receive(project, answer.id, "bot", 0, _texts("12345"))
    with pytest.raises(PayloadTooLarge) as refused:
        await receive(project, answer.id, "bot", 0, _texts("12345", "678", "9ab"))
    assert refused.value.field == "parts[2].delta"
    part = part_piece("data", "x" * 32_000)
    await receive(project, answer.id, "bot", 1, [part, part])
    with pytest.raises(PayloadTooLarge) as refused:
        await receive(project, answer.id, "bot", 3, [part])
    assert refused.value.field == "parts"
    with pytest.raises(PayloadTooLarge) as refused:
        await log.outside_answers.end(project, answer.id, "bot", "completed", text="x" * 11)
    assert refused.value.field == "text"
    state = await _state(log, answer)
    assert (state.text, len(state.parts)) == ("12345", 2)


async def test_an_end_may_replace_the_text(open_log: OpenLog, project: str) -> None:
    """§4: the parts stay, with offsets within the new text; metadata is the worker's."""
    log = await open_log()
    answer = await _begun(log, project)
    pieces = [*_texts("long text"), part_piece("data", 1)]
    await log.outside_answers.receive(project, answer.id, "bot", 0, pieces)
    await log.outside_answers.end(
        project, answer.id, "bot", "completed", text="short", metadata={"model": "m"}
    )
    message = await _message(log, answer)
    assert message.content.text == "short"
    assert msgspec.json.decode(message.metadata)["model"] == "m"
    assert _data(message)["parts"] == [{"kind": "data", "offset": 5, "data": 1}]


@pytest.mark.parametrize(
    "status, reason, expected",
    [
        ("failed", "no model", {"type": "answer_failed", "reason": "no model"}),
        ("failed", None, {"type": "answer_failed", "reason": "the assistant gave no reason"}),
        ("stopped", None, {"type": "answer_stopped", "stoppedBy": "bot"}),
    ],
)
async def test_an_answer_ends_once(
    open_log: OpenLog, project: str, status: Any, reason: str | None, expected: dict[str, str]
) -> None:
    """§4: later ends return how it ended, and change nothing; the text so far is kept."""
    log = await open_log()
    answer = await _begun(log, project)
    await log.outside_answers.receive(project, answer.id, "bot", 0, _texts("half"))
    end = log.outside_answers.end
    first = await end(project, answer.id, "bot", status, reason=reason)
    again = await end(project, answer.id, "bot", "completed", text="other")
    assert (again.status, again.answer.end_seq) == (status, first.answer.end_seq)
    message = await _message(log, answer)
    assert message.content.text == "half"
    assert _data(message) == {"replyTo": answer.reply_to, **expected}


async def test_an_ended_answer_takes_no_pieces(open_log: OpenLog, project: str) -> None:
    """§4: ANSWER_ENDED; what came too late is nowhere."""
    log = await open_log()
    answer = await _begun(log, project)
    await log.outside_answers.end(project, answer.id, "bot", "completed", text="all")
    with pytest.raises(AnswerEnded):
        await log.outside_answers.receive(project, answer.id, "bot", 0, _texts("late"))
    assert await _deltas(log, project) == []
    assert (await _state(log, answer)).text == "all"


async def _stop(log: EventLog, answer: Answer) -> str:
    asked = await log.answers.stop(answer.project_id, answer.id, "alice")
    assert asked is not None
    return await log.outside_answers.stop(asked.answer)


async def test_a_member_stops_an_answer_at_once(open_log: OpenLog, project: str) -> None:
    """§5: it ends with what was written; the worker is told, and ends nothing more."""
    log = await open_log()
    answer = await _begun(log, project)
    await log.outside_answers.receive(project, answer.id, "bot", 0, _texts("half"))
    assert await _stop(log, answer) == "stopped"
    received = await log.outside_answers.receive(project, answer.id, "bot", 1, _texts("more"))
    assert (received.is_stop_requested, received.next_index) == (True, 1)
    ended = await log.outside_answers.end(project, answer.id, "bot", "completed", text="whole")
    message = await _message(log, answer)
    assert (ended.status, ended.answer.end_seq) == ("stopped", message.seq)
    assert message.content.text == "half"
    assert _data(message)["stoppedBy"] == "alice"


async def test_an_end_and_a_stop_race(open_log: OpenLog, project: str) -> None:
    """§5: one of them ends the answer, the other returns that."""
    logs = [await open_log(), await open_log()]
    for _ in range(5):
        answer = await _begun(logs[0], project)
        ends: list[Coroutine[Any, Any, Any]] = [
            _stop(logs[0], answer),
            logs[1].outside_answers.end(project, answer.id, "bot", "completed", text="all"),
            logs[1].outside_answers.receive(project, answer.id, "bot", 0, _texts("a")),
        ]
        results: list[Any] = await asyncio.gather(*ends, return_exceptions=True)
        message = await _message(logs[0], answer)
        status = {"answer": "completed", "answer_stopped": "stopped"}[_data(message)["type"]]
        assert results[0] == status
        assert results[1].status == status


async def test_a_silent_assistant_has_failed(
    open_log: OpenLog, project: str, database: Database
) -> None:
    """§5: once its lease ran out a process ends the answer with its text; then it is too late."""
    log = await open_log(EventLogConfig(answer_lease_s=0.3))
    answer = await _begun(log, project)
    await log.outside_answers.receive(project, answer.id, "bot", 0, _texts("half"))
    await _expire(database, answer)

    async def failed() -> bool:
        return (await _state(log, answer)).status == "failed"

    await wait_until(failed, what="the end of a silent answer")
    with pytest.raises(AnswerEnded):
        await log.outside_answers.receive(project, answer.id, "bot", 1, _texts("late"))
    ended = await log.outside_answers.end(project, answer.id, "bot", "completed", text="all")
    assert ended.status == "failed"
    message = await _message(log, answer)
    assert message.content.text == "half"
    assert _data(message)["reason"] == "the assistant was silent"


async def test_a_stop_that_was_stored_ends_the_answer(
    open_log: OpenLog, project: str, database: Database
) -> None:
    """§5: also when the process that took the request died; the worker's own lease is no matter."""
    log = await open_log(EventLogConfig(answer_lease_s=0.3))
    answer = await _begun(log, project)
    await log.outside_answers.receive(project, answer.id, "bot", 0, _texts("half"))
    await log.answers.stop(project, answer.id, "alice")
    await database.execute(
        "UPDATE answers SET stop_requested_at = now() - interval '1 min' WHERE id = $1", answer.id
    )

    async def has_stopped() -> bool:
        state = await _state(log, answer)
        return (state.status, state.text) == ("stopped", "half")

    await wait_until(has_stopped, what="the end of a stopped answer")


async def test_every_request_renews_the_lease(
    open_log: OpenLog, project: str, database: Database
) -> None:
    """§4: one without pieces too; a late one counts until it is taken over."""
    log = await open_log(EventLogConfig(answer_lease_s=30, outside_bounds=OutsideBounds(lease_s=9)))
    answer = await _begun(log, project)
    await _expire(database, answer)
    received = await log.outside_answers.receive(project, answer.id, "bot", 0, [])
    assert received.next_index == 0
    (row,) = await database.fetch(
        "SELECT extract(epoch FROM lease_until - now())::float8 AS left_s FROM answers"
        " WHERE id = $1",
        answer.id,
    )
    assert 0 < row["left_s"] <= 9


async def test_pieces_for_an_answer_that_is_being_given_up_are_refused(
    open_log: OpenLog, project: str, database: Database
) -> None:
    """§4: a process took it over, and has not ended it yet; an end is to be tried again."""
    log = await open_log(EventLogConfig(answer_lease_s=30))
    answer = await _begun(log, project)
    await database.execute("UPDATE answers SET worker_id = 'keeper' WHERE id = $1", answer.id)
    with pytest.raises(AnswerEnded):
        await log.outside_answers.receive(project, answer.id, "bot", 0, _texts("late"))
    await log.answers.stop(project, answer.id, "alice")
    received = await log.outside_answers.receive(project, answer.id, "bot", 0, _texts("late"))
    assert received.is_stop_requested
    assert (await _state(log, answer)).text == ""


async def test_an_answer_is_begun_again_for_its_worker(open_log: OpenLog, project: str) -> None:
    """§5: another answer to the same message, which only names the one before."""
    log = await open_log()
    answer = await _begun(log, project)
    outside = log.outside_answers
    with pytest.raises(AnswerInProgress):
        await outside.begin_again(answer, "alice")
    await outside.end(project, answer.id, "bot", "completed", text="first")
    before = (await _state(log, answer)).answer
    again = await outside.begin_again(before, "alice", client_msg_id="c")
    assert again.is_new
    assert (again.answer.user_id, again.answer.reply_to) == ("bot", answer.reply_to)
    await outside.receive(project, again.answer.id, "bot", 0, _texts("second"))
    await outside.end(project, again.answer.id, "bot", "completed")
    message = (await log.log.read(project))[-1]
    assert (message.content.text, message.message_id) == ("second", again.answer.id)
    assert msgspec.json.decode(message.metadata)["regenerates"] == answer.id


async def test_a_repeated_regenerate_belongs_to_its_member(open_log: OpenLog, project: str) -> None:
    """§4: neither another member nor the worker has used its client_msg_id."""
    log = await open_log()
    outside = log.outside_answers
    answer = await _begun(log, project)
    await outside.end(project, answer.id, "bot", "completed", text="first")
    before = (await _state(log, answer)).answer
    begin: Callable[[str], Coroutine[Any, Any, Any]] = lambda user_id: outside.begin_again(  # noqa: E731
        before, user_id, client_msg_id="c"
    )
    first, again, other = await begin("alice"), await begin("alice"), await begin("bob")
    assert (first.is_new, again.is_new, other.is_new) == (True, False, True)
    assert again.answer.id == first.answer.id != other.answer.id
    own = await outside.begin(project, answer.reply_to, "bot", client_msg_id="c")
    assert own.is_new
    await outside.end(project, other.answer.id, "bot", "completed", text="x")
    with pytest.raises(IdempotencyMismatch):
        await outside.begin_again(
            (await _state(log, other.answer)).answer, "alice", client_msg_id="c"
        )


async def test_a_step_is_completed_when_its_caller_is_cancelled(
    open_log: OpenLog, project: str
) -> None:
    """A client that leaves after it sent its pieces has sent them."""
    log = await open_log()
    answer = await _begun(log, project)
    receiving = asyncio.create_task(
        log.outside_answers.receive(project, answer.id, "bot", 0, _texts("a"))
    )
    await asyncio.sleep(0)
    receiving.cancel()
    await log.outside_answers.drained()
    assert receiving.cancelled()
    assert (await _state(log, answer)).text == "a"
    assert len(await _deltas(log, project)) == 1
