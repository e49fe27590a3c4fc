"""What an answer is so far, from pieces and states in any mixture."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.client import AnswerSoFar, AnswerState, Delta, Event, Part, Piece
from service.client.answer_so_far import joined, joined_data
from service.client.client_answers import event_of


def _delta(index: int, **content: object) -> Delta:
    data = {
        "entryId": f"1-{index + 1}", "projectId": "p", "userId": "bot", "timestamp": "t",
        "content": {"messageId": "a1", "index": index, **content},
    }  # fmt: skip
    event = event_of("message.delta", msgspec.json.encode(data))
    assert isinstance(event, Delta)
    return event


def _state(index: int, text: str, parts: list[Any] | None = None) -> AnswerState:
    content = {
        "messageId": "a1", "replyTo": "m1", "index": index, "text": text, "parts": parts or [],
        "status": "in_progress",
    }  # fmt: skip
    data = {"projectId": "p", "userId": "bot", "content": content, "timestamp": "t"}
    event = event_of("answer.state", msgspec.json.encode(data))
    assert isinstance(event, AnswerState)
    return event


def test_the_events_have_types() -> None:
    """§6: a piece without a kind is text; a state has what it answers and who writes it."""
    delta = _delta(0, delta="x")
    assert (delta.name, delta.message_id, delta.index) == ("message.delta", "a1", 0)
    assert (delta.project_id, delta.user_id, delta.piece) == ("p", "bot", Piece("text", "x"))
    assert delta.data["entryId"] == "1-1"
    assert _delta(1, kind="data", data=None).piece == Piece("data")
    state = _state(1, "x", [{"kind": "data", "offset": 0, "data": [1]}])
    assert (state.reply_to, state.user_id, state.status) == ("m1", "bot", "in_progress")
    assert state.parts == (Part("data", 0, [1]),)
    assert event_of("typing.start", b"{}").name == "typing.start"


@pytest.mark.parametrize("data", [b"{}", b'{"content":{"messageId":1,"index":"x"}}', b"[", b"\xff"])
def test_a_foreign_entry_ends_no_follower(data: bytes) -> None:
    """Data of another form is handed on without a type."""
    for name in ("message.delta", "answer.state"):
        event = event_of(name, data)
        assert (type(event), event.name, event.json) == (Event, name, data)


def test_repeats_and_holes_change_nothing() -> None:
    """What is missing comes with a state."""
    answer = AnswerSoFar("a1")
    assert answer.apply(_delta(0, delta="a"))
    assert not answer.apply(_delta(0, delta="a"))
    assert not answer.apply(_delta(2, delta="c"))
    assert (answer.text, answer.index) == ("a", 0)
    assert answer.apply(_state(2, "abc"))
    assert answer.apply(_delta(3, delta="d"))
    assert (answer.text, answer.index) == ("abcd", 3)


def test_an_older_state_changes_nothing() -> None:
    """One that is as new replaces."""
    answer = AnswerSoFar("a1")
    answer.apply(_state(3, "abcd"))
    assert not answer.apply(_state(2, "abc"))
    assert not answer.apply(_state(3, "abcd"))
    assert answer.apply(_state(3, "ABCD"))
    assert answer.text == "ABCD"


def test_other_answers_are_left_out() -> None:
    """Of one project several may be written."""
    answer = AnswerSoFar("a2")
    assert not answer.apply(_delta(0, delta="a"))
    assert not answer.apply(_state(0, "a"))


def test_parts_have_their_place_in_the_text() -> None:
    """`offset` counts code points; text between two parts keeps them apart."""
    answer = AnswerSoFar("a1")
    pieces: list[dict[str, object]] = [
        {"kind": "reasoning", "data": {"text": "I "}},
        {"kind": "reasoning", "data": {"text": "think"}},
        {"delta": "\U0001f600"},
        {"kind": "reasoning", "data": {"text": "more"}},
        {"kind": "tool", "data": {"id": "c", "name": "f", "text": "{"}},
        {"kind": "tool", "data": {"id": "c", "name": "f", "text": "}"}},
        {"kind": "tool", "data": {"id": "c", "output": 1}},
    ]
    for index, content in enumerate(pieces):
        assert answer.apply(_delta(index, **content))
    assert answer.parts == [
        Part("reasoning", 0, {"text": "I think"}),
        Part("reasoning", 1, {"text": "more"}),
        Part("tool", 1, {"id": "c", "name": "f", "text": "{}"}),
        Part("tool", 1, {"id": "c", "output": 1}),
    ]


@pytest.mark.parametrize(
    ("first", "second", "one"),
    [
        ({"text": "a"}, {"text": "b"}, {"text": "ab"}),
        ({"n": [1], "text": "a"}, {"text": "b", "n": [1]}, {"n": [1], "text": "ab"}),
        ({"text": "a"}, {"text": 1}, None),
        ({"text": "a"}, {"text": "b", "n": 1}, None),
        ({"text": "a", "n": True}, {"text": "b", "n": 1}, None),
        ({"text": "a", "n": [{"m": 0}]}, {"text": "b", "n": [{"m": False}]}, None),
        ({"n": 1}, {"n": 1}, None),
        ("a", "b", None),
        (None, None, None),
    ],
)
def test_data_is_joined_when_it_differs_in_its_text_alone(
    first: object, second: object, one: object
) -> None:
    """The rule of §5, the same wherever pieces are joined."""
    assert joined_data(first, second) == one


def test_pieces_of_two_kinds_stay_two() -> None:
    """Also with the same data."""
    assert joined(Piece("text", "a"), Piece("text", "b")) == Piece("text", "ab")
    assert joined(Piece("tool", data={"text": "a"}), Piece("data", data={"text": "b"})) is None


_PIECES = st.lists(
    st.one_of(
        st.builds(lambda text: Piece("text", text), st.text(min_size=1, max_size=3)),
        st.builds(
            lambda kind, data: Piece(kind, data=data),
            st.sampled_from(["reasoning", "tool"]),
            st.sampled_from([{"text": "a"}, {"text": "b", "id": "1"}, {"output": 1}]),
        ),
    ),
    max_size=8,
)


@settings(max_examples=40)
@given(pieces=_PIECES, data=st.data())
def test_how_pieces_are_cut_makes_no_difference(pieces: list[Piece], data: st.DataObject) -> None:
    """Joined in any places, with repeats and a state anywhere: the same text and parts."""
    whole = _applied([_delta(index, **piece.wire) for index, piece in enumerate(pieces)])
    fewer: list[Piece] = []
    for piece in pieces:
        one = joined(fewer[-1], piece) if len(fewer) > 0 and data.draw(st.booleans()) else None
        fewer[-1:] = [one] if one is not None else [*fewer[-1:], piece]
    events: list[Delta | AnswerState] = [
        _delta(index, **piece.wire) for index, piece in enumerate(fewer)
    ]
    known = data.draw(st.integers(0, len(fewer)))
    before = _applied(events[:known])
    parts = [{"kind": part.kind, "offset": part.offset, "data": part.data} for part in before.parts]
    state = _state(before.index, before.text, parts)
    seen = data.draw(st.integers(0, len(fewer)))
    repeated = data.draw(st.integers(0, seen))
    cut = _applied([*events[:seen], state, *events[min(repeated, known) :]])
    assert (cut.text, cut.parts, cut.index) == (whole.text, whole.parts, len(fewer) - 1)


def _applied(events: list[Delta | AnswerState] | list[Delta]) -> AnswerSoFar:
    answer = AnswerSoFar("a1")
    for event in events:
        answer.apply(event)
    return answer
