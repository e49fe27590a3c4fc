"""docs/protocol.md §5: which pieces of an answer are one, and what a run of pieces says."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.answers.pieces import (
    MAX_PIECE_BYTES,
    AnswerText,
    Piece,
    entries_of,
    joined,
    part_piece,
    piece_of,
    text_piece,
)
from streams.model.errors import InvalidInput, PayloadTooLarge
from streams.model.events import MAX_PARTS_BYTES

PIECES = st.lists(
    st.one_of(
        st.sampled_from(["a", "é", "𝄞 ", ""]).map(text_piece),
        st.sampled_from(["x", "y", ""]).map(lambda text: part_piece("reasoning", {"text": text})),
        st.tuples(st.sampled_from("12"), st.sampled_from(["{", "}"])).map(
            lambda call: part_piece("tool", {"id": call[0], "name": "f", "text": call[1]})
        ),
        st.sampled_from([1, [2], {"text": 3}, {"a": {"text": "b"}}]).map(
            lambda value: part_piece("data", value)
        ),
    ),
    max_size=12,
)


def said(pieces: list[Piece]) -> object:
    answer = AnswerText(pieces)
    return answer.text, msgspec.json.decode(msgspec.json.encode(answer.parts))


@given(PIECES)
def test_joining_says_the_same(pieces: list[Piece]) -> None:
    """The stream may join what comes too fast: an answer's text and parts stay the same."""
    assert said(joined(pieces)) == said(pieces)
    assert joined(joined(pieces)) == joined(pieces)


@given(PIECES, st.integers(0, 12))
def test_joining_in_two_steps_says_the_same(pieces: list[Piece], at: int) -> None:
    """It does not matter where the stream cut."""
    assert said([*joined(pieces[:at]), *joined(pieces[at:])]) == said(pieces)


@given(PIECES)
def test_entries_say_the_same(pieces: list[Piece]) -> None:
    """What goes into the stream says what was written."""
    assert said(entries_of(pieces)) == said(pieces)


def test_entries_are_small_enough_for_a_stream() -> None:
    """However much was written at once; a client joins them again."""
    pieces = [
        text_piece("x" * 20_000),
        *[part_piece("reasoning", {"text": "y" * 9000}) for _ in range(5)],
    ]
    entries = entries_of(pieces)
    assert [len(each.delta) for each in entries if each.kind == "text"] == [8000, 8000, 4000]
    assert [len(each.data) <= MAX_PIECE_BYTES for each in entries[3:]] == [True, True]
    assert said(entries) == said(pieces)


def test_parts_join_that_differ_in_text_alone() -> None:
    """One rule for reasoning and the input of a tool; text between two parts keeps them apart."""
    pieces = [
        part_piece("reasoning", {"text": "a "}),
        part_piece("reasoning", {"text": "b"}),
        text_piece("one "),
        part_piece("reasoning", {"text": "c"}),
        part_piece("tool", {"id": "1", "name": "f", "text": "{"}),
        part_piece("tool", {"id": "1", "name": "f", "text": "}"}),
        part_piece("tool", {"id": "2", "name": "f", "text": "{}"}),
        text_piece("two"),
    ]
    assert said(pieces) == (
        "one two",
        [
            {"kind": "reasoning", "offset": 0, "data": {"text": "a b"}},
            {"kind": "reasoning", "offset": 4, "data": {"text": "c"}},
            {"kind": "tool", "offset": 4, "data": {"id": "1", "name": "f", "text": "{}"}},
            {"kind": "tool", "offset": 4, "data": {"id": "2", "name": "f", "text": "{}"}},
        ],
    )


def test_offset_counts_code_points() -> None:
    """Neither bytes nor UTF-16 units."""
    assert said([text_piece("é𝄞"), part_piece("data", 1)]) == (
        "é𝄞",
        [{"kind": "data", "offset": 2, "data": 1}],
    )


@given(PIECES)
def test_stored_piece_is_read_back(pieces: list[Piece]) -> None:
    """`piece_of` is the reverse of `body`."""
    assert [piece_of(piece.kind, piece.body) for piece in pieces] == pieces


def test_text_is_cut_at_its_bound_between_characters() -> None:
    """In bytes, and only whole code points."""
    answer = AnswerText(max_text_bytes=5)
    assert answer.take(text_piece("abé")) == text_piece("abé")
    assert answer.take(text_piece("éx")) is None
    assert (answer.text, answer.text_bytes, answer.truncated) == ("abé", 4, True)


def test_parts_are_bounded_as_json() -> None:
    """All parts of an answer together stay within their bound, joined or not."""
    grown, many = AnswerText(), AnswerText()
    for number in range(6_000):
        grown.take(part_piece("reasoning", {"text": '"é' * 10}))
        many.take(part_piece("data", number))
    for answer in (grown, many):
        size_bytes = len(msgspec.json.encode(answer.parts))
        assert MAX_PARTS_BYTES / 2 < size_bytes <= MAX_PARTS_BYTES


@pytest.mark.parametrize(
    ("data", "stored"),
    [("\x00", b'"\\ufffd"'), ("\\u0000", b'"\\\\u0000"'), ("\\\x00", b'"\\\\\\ufffd"')],
)
def test_data_never_has_u0000(data: str, stored: bytes) -> None:
    """Postgres could not read such JSON."""
    assert part_piece("data", data).data == stored


def test_text_has_nothing_that_cannot_be_stored() -> None:
    """Neither U+0000 nor half a character."""
    assert text_piece("a\x00b\ud800").delta == "ab?"


def test_part_that_cannot_be_kept_is_refused() -> None:
    """Naming the field."""
    with pytest.raises(PayloadTooLarge):
        part_piece("data", "x" * MAX_PIECE_BYTES)
    with pytest.raises(InvalidInput, match="data"):
        part_piece("data", "\ud800")
    with pytest.raises(InvalidInput, match="kind"):
        part_piece("text", "x")
