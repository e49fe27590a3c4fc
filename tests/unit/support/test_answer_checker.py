"""The checker of answers accepts correct histories and reports the right violation of others."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.support.answer_checker import Recorded, check_answers
from tests.support.answer_history import AskedAnswer, StopRequest, WrittenAnswer, piece_of
from tests.support.history import ClientHistory, Connection, Event, LogRow, Post, log_row
from tests.support.violations import Kind

# Message 1 is the question; answer "a" ends as message 3. Its writer means to say:
_TEXT = "one two three"
_QUESTION = Post("p", "asker", "q1", "why?")
_ASKED = AskedAnswer("a", "m1", _TEXT)


def _message(seq: int, message_id: str, text: str, **response: Any) -> bytes:
    return msgspec.json.encode(
        {
            "seq": seq,
            "messageId": message_id,
            "client_msg_id": None if response else f"q{seq}",
            "userId": "asker",
            "content": {"text": text},
            "metadata": {"build_id": None, "response_data": response or None},
        }
    )


def _end(text: str = _TEXT, *, seq: int = 3, answer: str = "a", **response: Any) -> bytes:
    return _message(seq, answer, text, **({"type": "answer", "replyTo": "m1"} | response))


def _regenerated(before: str) -> bytes:
    message = msgspec.json.decode(_end(seq=4, answer="b"))
    message["metadata"]["regenerates"] = before
    return msgspec.json.encode(message)


def _log(*end: bytes) -> list[LogRow]:
    rows = [_message(1, "m1", "why?"), _message(2, "m2", "other"), *(end or [_end()])]
    return [log_row(row) for row in rows]


def _new(data: bytes) -> Event:
    return Event("message.new", str(log_row(data).seq), data)


def _piece(index: int, delta: str = "", *, answer: str = "a", **content: Any) -> Event:
    said = content or {"delta": delta}
    data = {"entryId": f"2-{index}", "content": {"messageId": answer, "index": index} | said}
    return Event("message.delta", "2", msgspec.json.encode(data))


def _state(index: int, text: str, *, reply_to: str = "m1", **content: Any) -> Event:
    about = {"messageId": "a", "replyTo": reply_to, "index": index, "text": text}
    data = {"content": about | {"parts": [], "status": "in_progress"} | content}
    return Event("answer.state", "2", msgspec.json.encode(data))


def _written(*deltas: str, status: str | None = None) -> WrittenAnswer:
    pieces = tuple(piece_of(_piece(index, delta)) for index, delta in enumerate(deltas))
    return WrittenAnswer("a", pieces, status)


_PIECES = (_piece(0, "one "), _piece(1, "two "), _piece(2, "three"))
_QUESTION_NEW = _new(_message(1, "m1", "why?"))
_THROUGHOUT = (_QUESTION_NEW, _state(-1, ""), *_PIECES, _new(_end()))


def _client(*events: Event, name: str = "c") -> ClientHistory:
    return ClientHistory(name, "p", (Connection(None, events),))


def _kinds(
    *clients: ClientHistory,
    log: list[LogRow] | None = None,
    asked: tuple[AskedAnswer, ...] = (_ASKED,),
    stops: tuple[StopRequest, ...] = (),
    written: tuple[WrittenAnswer, ...] = (),
    keeps_pieces: bool = True,
) -> list[Kind]:
    violations = check_answers(
        Recorded(
            requests=[_QUESTION],
            asked=asked,
            stops=stops,
            written=written,
            clients=clients,
            log=_log() if log is None else log,
            keeps_pieces=keeps_pieces,
        )
    )
    return [violation.kind for violation in violations]


def test_a_correct_history_is_accepted() -> None:
    """Readers from the beginning, late ones with the answer so far, and one that knew nothing."""
    late = _client(_piece(1, "two "), _state(1, "one two "), _PIECES[2], _new(_end()))
    assert _kinds(_client(*_THROUGHOUT), late, _client(_new(_end()))) == []


def test_repeats_and_a_state_ahead_of_its_pieces_are_accepted() -> None:
    """G6: pieces come again; a poll may tell the state before the pieces arrive."""
    ahead = _client(_PIECES[0], _state(2, _TEXT), *_PIECES, _state(0, "one "), _new(_end()))
    again = ClientHistory(
        "again", "p", (Connection(None, _PIECES[:2]), Connection("2", (*_PIECES, _new(_end()))))
    )
    assert _kinds(ahead, again) == []


def test_an_answer_without_its_message_is_unended() -> None:
    """Every acknowledged answer ends as a message."""
    assert _kinds(log=_log()[:2]) == [Kind.ANSWER_UNENDED]


@pytest.mark.parametrize(
    ("log", "kind"),
    [
        (_log(_end(), _end(seq=4)), Kind.ANSWER_REPEAT),
        (_log(_end(), _end(seq=4, answer="b")), Kind.ANSWER_REPEAT),
        (_log(_end(), _end(seq=4, answer="b", replyTo="m2")), Kind.INVENTED),
        (_log(_end(replyTo="m2")), Kind.ANSWER_WRONG),
        (_log(_end(type="answer_lost")), Kind.ANSWER_WRONG),
        (_log(_end("one two")), Kind.ANSWER_WRONG),
        (_log(_end("one zwei", type="answer_failed")), Kind.ANSWER_WRONG),
        (_log(_end("one", type="answer_stopped", stoppedBy="eve")), Kind.ANSWER_WRONG),
        (_log(_end("one", type="answer_stopped")), Kind.ANSWER_WRONG),
        (_log(_end(stoppedBy="bob")), Kind.ANSWER_WRONG),
    ],
    ids=[
        "two messages", "two answers", "nobody asked", "another question", "unknown type",
        "complete and short", "never written", "stopped by another", "stopped by nobody",
        "complete and stopped",
    ],
)  # fmt: skip
def test_a_wrong_end_is_reported(log: list[LogRow], kind: Kind) -> None:
    """One message, of the right type, to the right question, with what its writer wrote."""
    assert kind in _kinds(log=log, stops=(StopRequest("a", "bob", accepted=False),))


def test_a_request_with_two_answers_is_reported() -> None:
    """G5: a repeated question gets the first answer."""
    log = _log(_end(), _end(seq=4, answer="b"))
    asked = (_ASKED, AskedAnswer("b", "m1", _TEXT))
    assert _kinds(log=log, asked=asked) == [Kind.ACK_TWICE, Kind.ANSWER_REPEAT]


def test_an_answer_that_was_asked_for_again_is_accepted() -> None:
    """`metadata.regenerates` names the answer before; another one is wrong."""
    again = AskedAnswer("b", "m1", _TEXT, "a")
    kept = _log(_end(), _regenerated("a"))
    assert _kinds(log=kept, asked=(_ASKED, again)) == []
    wrong = _log(_end(), _regenerated("m2"))
    assert _kinds(log=wrong, asked=(_ASKED, again)) == [Kind.ANSWER_WRONG]


def test_a_stop_that_is_kept_is_accepted() -> None:
    """Stopped, or complete before that; also failed when the stop was never acknowledged."""
    stop = StopRequest("a", "bob", accepted=True)
    stopped = _log(_end("one ", type="answer_stopped", stoppedBy="bob"))
    failed = _log(_end("one ", type="answer_failed", reason="died"))
    assert _kinds(log=stopped, stops=(stop,)) == []
    assert _kinds(stops=(stop,)) == []
    assert _kinds(log=failed, stops=(StopRequest("a", "bob", accepted=False),)) == []


def test_an_accepted_stop_that_ends_as_failed_is_reported() -> None:
    """The row keeps who asked, whoever ends the answer."""
    log = _log(_end("one ", type="answer_failed", reason="died"))
    stops = (StopRequest("a", "bob", accepted=True), StopRequest("b", "bob", accepted=True))
    assert sorted(_kinds(log=log, stops=stops)) == [Kind.ANSWER_UNENDED, Kind.STOP_LOST]


@pytest.mark.parametrize(
    ("events", "kind"),
    [
        ((*_PIECES, _piece(3, " four")), Kind.SHOWN_LOST),
        ((_state(1, "one two four"),), Kind.SHOWN_LOST),
        ((_piece(0, "two "),), Kind.SHOWN_LOST),
        ((_state(1, "one two "), _piece(2, "four")), Kind.SHOWN_LOST),
        ((_piece(0, "one ", answer="z"),), Kind.INVENTED),
        ((_PIECES[0], _PIECES[1], _state(1, "one ")), Kind.STATE_WRONG),
        ((_state(0, "one "), _state(0, "one two ")), Kind.STATE_WRONG),
        ((_state(0, "one ", reply_to="m2"),), Kind.STATE_WRONG),
        ((_state(0, "one ", status="completed"),), Kind.STATE_WRONG),
        ((_piece(0, "one "), _piece(0, "one")), Kind.PIECE_CHANGED),
        ((_QUESTION_NEW, *_PIECES[:2], _new(_end())), Kind.SHOWN_LATE),
        ((_QUESTION_NEW, _PIECES[0], _PIECES[2], _new(_end())), Kind.SHOWN_LATE),
        ((Event("message.delta", "2", b'{"content":{}}'),), Kind.CHANGED),
    ],
    ids=[
        "more than the message", "another state", "another beginning", "another end", "unknown",
        "a state behind its pieces", "two states", "a state of another question",
        "a state of an end", "two pieces", "an end not shown", "a piece not shown", "unreadable",
    ],
)  # fmt: skip
def test_what_was_shown_and_is_not_kept_is_reported(events: tuple[Event, ...], kind: Kind) -> None:
    """Shown is kept: at every moment a beginning of the message, and the same at all clients."""
    assert _kinds(_client(*events)) == [kind]


def test_clients_that_received_different_pieces_are_reported() -> None:
    """The same message and index is the same piece everywhere, whatever became of Redis."""
    one, other = _client(_piece(0, "one ")), _client(_piece(0, "one"), name="other")
    assert _kinds(one, other) == [Kind.PIECE_CHANGED]


def test_a_piece_that_redis_lost_is_accepted() -> None:
    """A client then shows less until the message comes."""
    lost = _client(_QUESTION_NEW, _PIECES[0], _PIECES[2], _new(_end()))
    assert _kinds(lost, keeps_pieces=False) == []


def test_a_stop_with_the_last_piece_may_leave_it_to_the_message() -> None:
    """The answer ends at once then: nobody waits for its last piece to be published."""
    late = _client(_QUESTION_NEW, *_PIECES[:2], _new(_end()))
    assert _kinds(late, stops=(StopRequest("a", "bob", accepted=True),)) == []


def test_pieces_acknowledged_to_a_writer_must_be_in_the_message() -> None:
    """A 200 of `deltas` is kept however the answer ends."""
    kept = _written("one ", "two ")
    failed = _log(_end("one ", type="answer_failed"))
    assert _kinds(written=(kept,)) == []
    assert _kinds(log=failed, written=(_written("one "),)) == []
    assert _kinds(log=failed, written=(kept,)) == [Kind.PIECE_LOST]


def test_an_end_that_its_writer_was_not_told_is_reported() -> None:
    """The response to `end` says how the answer ended."""
    assert _kinds(written=(_written(_TEXT, status="completed"),)) == []
    wrong = _written(_TEXT, status="stopped")
    assert _kinds(written=(wrong,)) == [Kind.ANSWER_WRONG]


_THINKS: tuple[dict[str, Any], ...] = (
    {"kind": "reasoning", "data": {"text": "hm "}},
    {"kind": "reasoning", "data": {"text": "so"}},
)
_FOUND: dict[str, Any] = {"kind": "tool", "data": {"id": "call", "output": [1]}}
_WITH_PARTS = (
    _piece(0, **_THINKS[0]), _piece(1, **_THINKS[1]), _piece(2, "one "), _piece(3, **_FOUND),
    _piece(4, "two three"),
)  # fmt: skip
_PARTS: list[dict[str, Any]] = [
    {"kind": "reasoning", "offset": 0, "data": {"text": "hm so"}},
    {"kind": "tool", "offset": 4, "data": {"id": "call", "output": [1]}},
]


def test_parts_are_joined_and_kept_in_order() -> None:
    """§5: adjacent parts that differ in `text` alone are one, in the state and in the message."""
    end = _end(parts=_PARTS)
    begun = _state(0, "", parts=[_PARTS[0] | {"data": {"text": "hm "}}])
    late = _client(begun, *_WITH_PARTS[1:], _new(end))
    whole = _client(_QUESTION_NEW, *_WITH_PARTS, _state(3, "one ", parts=_PARTS), _new(end))
    writer = WrittenAnswer("a", tuple(map(piece_of, _WITH_PARTS)))
    assert _kinds(whole, late, log=_log(end), written=(writer,)) == []


@pytest.mark.parametrize(
    ("parts", "kind"),
    [
        ([], Kind.SHOWN_LOST),
        (_PARTS[:1], Kind.SHOWN_LOST),
        ([_PARTS[1], _PARTS[0]], Kind.SHOWN_LOST),
        ([_PARTS[0] | {"data": {"text": "hm"}}, _PARTS[1]], Kind.SHOWN_LOST),
        ([_PARTS[0], _PARTS[1] | {"offset": 3}], Kind.SHOWN_LOST),
    ],
    ids=["none", "the first", "in another order", "another text", "another place"],
)
def test_parts_that_were_shown_and_are_not_kept_are_reported(
    parts: list[dict[str, Any]], kind: Kind
) -> None:
    """Shown parts are a beginning of the message's parts."""
    end = _end(parts=parts)
    assert _kinds(_client(*_WITH_PARTS), log=_log(end)) == [kind]


def test_parts_acknowledged_to_a_writer_must_be_in_the_message() -> None:
    """Parts are kept like text, up to the bound on all of them."""
    written = WrittenAnswer("a", tuple(map(piece_of, _WITH_PARTS)))
    assert _kinds(log=_log(_end(parts=_PARTS[:1])), written=(written,)) == [Kind.PIECE_LOST]
