"""What is followed of unfinished answers: what a stream that opens is shown, and what a poll finds.

That nothing falls between is a property (`tests/property/test_followed_answers.py`).
"""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from streams.answers.answer_events import delta_data, read_begin, read_delta, state_data
from streams.answers.answer_values import Answer, AnswerProgress, AnswerState
from streams.answers.followed_answers import MAX_KNOWN, FollowedAnswers
from streams.answers.pieces import Piece, text_piece
from streams.model import sse
from tests.support.answer_reader import AnswerReader

ID = "00000000-0000-4000-8000-000000000001"
OTHER = "00000000-0000-4000-8000-000000000002"


def _answer(answer_id: str = ID) -> Answer:
    return Answer(
        id=answer_id, project_id="p", user_id="u", question_seq=1, reply_to="q", worker_id="w"
    )


def _state(text: str = "", index: int = -1, answer_id: str = ID) -> AnswerState:
    return AnswerState(
        answer=_answer(answer_id), status="in_progress", text=text, parts=[], index=index
    )


def _delta(index: int, text: str, answer_id: str = ID) -> bytes:
    return _framed(text_piece(text), index, answer_id)


def _framed(piece: Piece, index: int, answer_id: str = ID) -> bytes:
    return sse.event_frame("message.delta", delta_data(_answer(answer_id), index, piece))


def _end(answer_id: str, type_: bytes = b"assistant") -> bytes:
    data = b'{"seq":7,"messageId":"%b","content":{"text":"x","type":"%b"}}'
    return sse.message_frame(7, data % (answer_id.encode(), type_))


def _progress(index: int, age_s: float = 0.0, *, is_streamed: bool = True) -> AnswerProgress:
    return AnswerProgress(ID, "p", index, is_streamed, age_s)


def _read(followed: FollowedAnswers, *states: AnswerState) -> None:
    followed.begin_read()
    followed.end_read(states)


def _shown(followed: FollowedAnswers) -> dict[str, tuple[int, str]]:
    """Return index and text of what a stream that opens now is shown."""
    reader = AnswerReader()
    for frame in followed.frames():
        reader.take(frame)
    return {each: (shown.index, shown.text) for each, shown in reader.answers.items()}


def test_a_stream_is_shown_what_was_read_and_what_came_since() -> None:
    """§6: all of it up to a piece; the frame is made once for all that open."""
    followed = FollowedAnswers()
    _read(followed, _state("ab", 1))
    followed.saw(_delta(1, "b"))
    followed.saw(_delta(2, "c"))
    assert _shown(followed) == {ID: (2, "abc")}
    assert followed.frames()[0] is followed.frames()[0]


def test_only_what_the_database_has_is_shown() -> None:
    """Another program with access to Redis cannot show an answer to a stream that opens."""
    followed = FollowedAnswers()
    _read(followed)
    followed.saw_begin(ID)
    followed.saw(_delta(0, "forged"))
    assert (_shown(followed), followed.is_stale) == ({}, True)
    _read(followed)
    assert _shown(followed) == {}


def test_pieces_that_the_database_does_not_have_are_forgotten() -> None:
    """A forged piece of a known answer is shown until the next poll, at most."""
    followed = FollowedAnswers()
    _read(followed, _state("ab", 1))
    followed.saw(_delta(2, "forged"))
    followed.end_poll([_progress(1)], followed.begin_poll())
    assert (_shown(followed), followed.is_stale) == ({}, True)
    _read(followed, _state("ab", 1))
    assert _shown(followed) == {ID: (1, "ab")}


def test_pieces_that_come_during_a_poll_are_not_taken_for_forged() -> None:
    """A poll compares with what had come when it began: what came later it may not have seen."""
    followed = FollowedAnswers()
    _read(followed, _state("ab", 1))
    before = followed.begin_poll()
    followed.saw(_delta(2, "c"))
    followed.end_poll([_progress(1)], before)
    assert _shown(followed) == {ID: (2, "abc")}


def test_an_answer_that_the_database_no_longer_has_unfinished_is_forgotten() -> None:
    """Its message may be on its way; one that was read during the poll stays."""
    followed = FollowedAnswers()
    _read(followed, _state("a", 0))
    before = followed.begin_poll()
    _read(followed, _state("a", 0), _state("b", 0, OTHER))
    followed.end_poll([], before)
    assert _shown(followed) == {OTHER: (0, "b")}


def test_pieces_during_a_read_are_bounded() -> None:
    """Flooding the stream while a read is slow takes no memory; the next read tells the rest."""
    followed = FollowedAnswers()
    followed.begin_read()
    for index in range(100):
        followed.saw(_delta(index, "x" * 8000))
    followed.end_read([_state()])
    assert followed.is_stale
    index, text = _shown(followed)[ID]
    assert (0 < index < 20, text) == (True, "x" * 8000 * (index + 1))


def test_at_most_so_many_answers_are_known() -> None:
    """Of more, the newest: those that the read has first."""
    followed = FollowedAnswers()
    ids = [f"00000000-0000-4000-8000-{n:012d}" for n in range(MAX_KNOWN + 5)]
    _read(followed, *[_state(answer_id=each) for each in ids])
    assert list(_shown(followed)) == ids[MAX_KNOWN - 1 :: -1]


def test_a_piece_that_comes_during_a_read_is_joined() -> None:
    """The read may have been served before the piece was stored."""
    followed = FollowedAnswers()
    followed.begin_read()
    followed.saw(_delta(1, "b"))
    followed.end_read([_state("a", 0)])
    assert (_shown(followed), followed.is_stale) == ({ID: (1, "ab")}, False)


def test_a_read_that_was_served_early_takes_nothing_back() -> None:
    """What came through the tail is newer than it, and an answer that ended stays ended."""
    followed = FollowedAnswers()
    _read(followed, _state("a", 0), _state("a", 0, OTHER))
    followed.begin_read()
    followed.saw(_delta(1, "b"))
    followed.saw(_end(OTHER))
    followed.end_read([_state("a", 0), _state("a", 0, OTHER)])
    assert _shown(followed) == {ID: (1, "ab")}
    followed.saw(_delta(1, "late", OTHER))
    assert not followed.is_stale


def test_an_answer_that_a_read_lacks_is_not_shown() -> None:
    """It has ended, and its message is on its way."""
    followed = FollowedAnswers()
    _read(followed, _state("a", 0), _state("b", 0, OTHER))
    _read(followed, _state("a", 0))
    assert list(_shown(followed)) == [ID]


def test_a_users_message_ends_no_answer() -> None:
    """Only an assistant's message does; others are not even decoded."""
    followed = FollowedAnswers()
    _read(followed, _state("a", 0))
    followed.saw(_end(ID, b"user"))
    assert list(_shown(followed)) == [ID]


def test_a_failed_read_leaves_what_was_known() -> None:
    """While Postgres is away streams are shown what was known, and pieces that still come."""
    followed = FollowedAnswers()
    _read(followed, _state("a", 0))
    followed.begin_read()
    followed.saw(_delta(1, "b"))
    followed.end_read(None)
    assert (_shown(followed), followed.is_stale) == ({ID: (1, "ab")}, True)


def test_a_restored_log_is_read_anew() -> None:
    """An answer may be further back than it was, or gone."""
    followed = FollowedAnswers()
    _read(followed, _state("abc", 2))
    followed.restart()
    assert followed.is_stale
    _read(followed, _state("a", 0))
    assert _shown(followed) == {ID: (0, "a")}


@pytest.mark.parametrize(
    ("age_s", "delivers", "lacks"),
    [(0.5, True, False), (1.5, True, True), (0.0, False, True)],
)
def test_a_stored_piece_that_did_not_come_is_found(
    age_s: float, delivers: bool, lacks: bool
) -> None:
    """At once while Redis does not deliver; else it gets a second to arrive."""
    followed = FollowedAnswers()
    _read(followed, _state("a", 0))
    found = followed.lacking([_progress(1, age_s)], delivers=delivers)
    assert [each.id for each in found] == [ID] * lacks


def test_a_hole_is_found_while_more_pieces_come() -> None:
    """The newest piece is always young then: what the last poll knew must have come by now."""
    followed = FollowedAnswers()
    _read(followed, _state("a", 0))
    followed.frames()
    assert followed.lacking([_progress(1)], delivers=True) == []
    followed.saw(_delta(2, "c"))
    followed.saw(_delta(3, "d"))
    assert [each.id for each in followed.lacking([_progress(3)], delivers=True)] == [ID]


def test_what_another_stream_read_does_not_hide_a_hole() -> None:
    """A read for a stream that opens tells the streams nothing that are open."""
    followed = FollowedAnswers()
    _read(followed, _state("a", 0))
    followed.frames()
    _read(followed, _state("abc", 2))
    assert _shown(followed) == {ID: (2, "abc")}
    assert followed.through(ID) == 0
    assert len(followed.lacking([_progress(2)], delivers=False)) == 1


def test_an_unstreamed_answer_is_shown_on_opening_only() -> None:
    """Its pieces are in no stream, so a poll would find all of them."""
    followed = FollowedAnswers()
    _read(followed, _state("a", 0))
    assert _shown(followed) == {ID: (0, "a")}
    found = followed.lacking([_progress(5, 9.0, is_streamed=False)], delivers=False)
    assert found == []


def _hostile(**content: Any) -> bytes:
    return msgspec.json.encode(
        {"projectId": "p", "userId": "u", "timestamp": "", "content": content}
    )


@pytest.mark.parametrize(
    "data",
    [
        b"{}",
        _hostile(messageId=ID, index="0", delta="x"),
        _hostile(messageId=ID, index=0, kind="other", data={}),
        _hostile(messageId=ID, index=0, kind="tool"),
        _hostile(messageId=ID, index=0, kind="data", data="x" * 40_000),
        _hostile(messageId=ID, index=0, kind="data", data=1).replace(
            b'"data":1', b'"data":' + b"[" * 5000 + b"]" * 5000
        ),
    ],
)
def test_an_entry_that_is_no_piece_is_skipped(data: bytes) -> None:
    """Other programs can put anything into a stream; it must not end the lane that reads it."""
    followed = FollowedAnswers()
    _read(followed, _state())
    followed.saw(sse.event_frame("message.delta", data))
    assert read_delta(data) is None
    assert _shown(followed) == {ID: (-1, "")}


def test_an_announcement_that_is_more_than_a_beginning_is_refused() -> None:
    """A forged one could hide an answer's pieces by a high index, or show a text."""
    begin = state_data(_state())
    assert read_begin(begin) == (ID, begin)
    padded = begin[:-1] + b',"more":1}'
    assert read_begin(padded) == (ID, begin)
    for forged in (
        state_data(_state("text", -1)),
        state_data(_state("", 1000)),
        begin.replace(b"in_progress", b"completed"),
        begin.replace(b'"q"', b'"' + b"q" * 3000 + b'"'),
        begin.replace(b'"u"', b"[" * 2000),
    ):
        assert read_begin(forged) is None
