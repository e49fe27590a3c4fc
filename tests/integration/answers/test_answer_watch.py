"""Answers so far on real servers: what a stream shows that opens, lost pieces, Redis away.

docs/protocol.md §6.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import pytest

from service.operate.embedded import RedisServer
from streams import EventLogConfig, NewMessage
from streams.answers.answer_ends import Ending
from streams.answers.answer_events import ANSWER_STATE, state_data
from streams.answers.answer_values import Answer, AnswerState
from streams.answers.piece_rows import NewPiece, PieceRows
from streams.answers.pieces import part_piece, text_piece
from streams.eventlog import EventLog
from streams.tail.tail import Tail
from streams.window import keys
from streams.window.redis_client import RedisClient
from tests.integration.conftest import OpenLog
from tests.support.answer_reader import AnswerReader, ShownAnswer
from tests.support.follower import following
from tests.support.waiting import wait_until

# By a thread it would end pytest at once and leave the servers running.
pytestmark = pytest.mark.timeout(60, method="signal")

QUICK = EventLogConfig(heads_poll_s=0.1)


class _Stream:
    """An open stream of one process, as `service/streaming` serves it."""

    def __init__(self, log: EventLog, tail: Tail) -> None:
        self.reader = AnswerReader()
        self._tail = tail
        self._index = tail.end_index
        for frame in log.answer_watch.frames(tail):
            self.reader.take(frame)
        tail.listen(self._changed, self.reader.take)

    def _changed(self) -> None:
        for frame in self._tail.frames(self._index):
            self.reader.take(frame)
        self._index = self._tail.end_index

    def close(self) -> None:
        self._tail.unlisten(self._changed, self.reader.take)

    def text(self, answer_id: str) -> str | None:
        shown = self.reader.answers.get(answer_id)
        return None if shown is None else shown.text


@contextlib.asynccontextmanager
async def _opened(log: EventLog, project: str) -> AsyncIterator[_Stream]:
    async with log.tails.reading(project) as tail:
        await log.answer_watch.ready(tail)
        stream = _Stream(log, tail)
        try:
            yield stream
        finally:
            stream.close()


async def _begun(log: EventLog, project: str) -> Answer:
    """Begin an answer whose pieces the test stores and publishes itself."""
    message = await log.append(project, NewMessage(user_id="u", text="question"))
    return (await log.answers.begin_reply(project, message.message_id, "bot")).answer


async def _store(log: EventLog, answer: Answer, index: int, text: str) -> None:
    """Store a piece that is never published."""
    pieces = [NewPiece(answer.id, index, text_piece(text))]
    owned = await PieceRows(log.database).store(pieces, log.answers.worker_id)
    assert owned == {answer.id: None}


async def test_streams_that_open_in_the_middle_show_everything(
    open_log: OpenLog, project: str
) -> None:
    """In another process too, at any moment: all so far, then what follows, then the message."""
    writer, other = await open_log(), await open_log()
    message = await writer.append(project, NewMessage(user_id="u", text="question"))
    async with contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(_opened(other, project))]
        async with writer.answer(project, reply_to=message.message_id, user_id="bot") as answer:
            for n in range(6):
                await answer.write(f"{n} é ")
                await answer.write_part("reasoning", {"text": f"<{n}>"})
                streams.append(await stack.enter_async_context(_opened(other, project)))
                last = streams[0]
                await wait_until(
                    lambda last=last, n=n: (last.text(answer.message_id) or "").startswith(
                        "".join(f"{each} é " for each in range(n + 1))
                    ),
                    what="the piece",
                )
        shown: list[ShownAnswer] = []
        for stream in streams:
            await wait_until(
                lambda stream=stream: (
                    answer.message_id in stream.reader.answers
                    and stream.reader.answers[answer.message_id].has_ended
                ),
                what="the message",
            )
            shown.append(stream.reader.answers[answer.message_id])
    state = await writer.answers.state(project, answer.message_id)
    assert state is not None
    assert {each.text for each in shown} == {state.text}
    assert [len(each.parts) for each in shown] == [len(state.parts)] * len(shown) == [6] * 7
    async with _opened(other, project) as late:
        assert late.reader.answers == {}


async def test_pieces_between_the_read_and_the_opening_are_joined(
    open_log: OpenLog, project: str
) -> None:
    """The state is taken when live begins, without another read: nothing is between them."""
    log = await open_log()
    answer = await _begun(log, project)
    opened = log.answers.open(answer)
    async with log.tails.reading(project) as tail:
        opened.add(text_piece("one "))
        await log.answers.flush(opened)
        await log.answer_watch.ready(tail)
        begun_at = tail.end_index
        opened.add(text_piece("two "))
        opened.add(part_piece("tool", {"id": "call"}))
        await log.answers.flush(opened)
        await wait_until(lambda: tail.end_index >= begun_at + 2, what="the pieces")
        stream = _Stream(log, tail)
        assert stream.text(answer.id) == "one two "
        assert len(stream.reader.answers[answer.id].parts) == 1
        stream.close()
        await log.answers.end(opened)


async def test_a_piece_whose_publish_was_lost_reaches_open_streams(
    open_log: OpenLog, project: str
) -> None:
    """A process may die between storing and publishing: a poll shows the answer's state."""
    log = await open_log()
    answer = await _begun(log, project)
    async with _opened(log, project) as stream, following(log, project, after=None) as follower:
        await _store(log, answer, 0, "lost")
        for _ in range(2):
            await log.answer_watch.once()
        assert stream.text(answer.id) == "lost"
        end = await log.answers.rows.end(answer, log.answers.worker_id, Ending())
        assert end is not None
        await follower.wait_seq(end.seq)
        # In the library, too, the state comes in its place and does no harm.
        states = [event for event in follower.events if event.name == ANSWER_STATE]
        assert [(each.seq, b'"text":"lost"' in each.data) for each in states] == [(None, True)]
        assert follower.events.index(states[0]) < len(follower.events) - 1


async def test_while_redis_is_away_streams_go_on(
    own_redis: RedisServer, open_log: OpenLog, project: str
) -> None:
    """G7 for answers: pieces come as states, streams open with all so far, the end comes too."""
    log = await open_log(QUICK, redis_url=own_redis.url)
    answer = await _begun(log, project)
    async with _opened(log, project) as early:
        await _store(log, answer, 0, "before ")
        own_redis.kill()
        await wait_until(lambda: not log.health.delivers, what="Redis known to be away")
        await _store(log, answer, 1, "after")
        await wait_until(lambda: early.text(answer.id) == "before after", what="the state")
        async with _opened(log, project) as late:
            assert late.text(answer.id) == "before after"
            await log.answers.rows.end(answer, log.answers.worker_id, Ending())
            for stream in (early, late):
                await wait_until(
                    lambda stream=stream: stream.reader.answers[answer.id].has_ended,
                    what="the message",
                )


async def test_a_forged_state_reaches_no_stream(
    open_log: OpenLog, project: str, redis_client: RedisClient
) -> None:
    """Other programs with access to Redis cannot replace what an answer says, nor hide it."""
    log = await open_log()
    async with _opened(log, project) as stream:
        answer = await _begun(log, project)
        await wait_until(lambda: stream.text(answer.id) == "", what="the beginning")
        await log.publisher.drained()
        forged = state_data(
            AnswerState(answer=answer, status="in_progress", text="forged", parts=[], index=9000)
        )
        await log.tails.lanes.signal(project, ANSWER_STATE, forged)
        entry = b'{"entryId":"1-1",' + forged[1:]
        await redis_client.call(
            "XADD", keys.stream(project), "1-1", "event", ANSWER_STATE, "data", entry, "at", "1"
        )
        opened = log.answers.open(answer)
        opened.add(text_piece("true"))
        await log.answers.flush(opened)
        await wait_until(lambda: stream.text(answer.id) == "true", what="the piece")
        await log.answers.end(opened)
    assert log.failed_part is None
