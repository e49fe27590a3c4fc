"""docs/protocol.md §1 and §2: ids of projects, users and entries, and the cursor."""

from __future__ import annotations

import pytest

from streams.model.errors import InvalidInput
from streams.model.ids import (
    MAX_SEQ,
    EntryId,
    InvalidCursor,
    check_project_id,
    check_user_id,
    is_user_id,
    parse_cursor,
)


@pytest.mark.parametrize(
    ("text", "seq"),
    [("0", 0), ("1", 1), ("200", 200), ("1000000000000000", 10**15), (str(MAX_SEQ), MAX_SEQ)],
)
def test_a_cursor_is_a_whole_number(text: str, seq: int) -> None:
    """§1: the cursor is the last seq that a client has; 0 is before all."""
    assert parse_cursor(text) == seq


@pytest.mark.parametrize(
    "text",
    ["", " ", "-1", "+1", "01", "00", " 1", "1 ", "1\n", "1.0", "1e3", "0x1", "1-0", "1_000",
     "abc", "null", "１", "²", "1,2", str(MAX_SEQ + 1), "9" * 400],
)  # fmt: skip
def test_any_other_text_is_refused_as_a_cursor(text: str) -> None:
    """§6: the stream then sends `stream.reset`; the text is never read as another number."""
    with pytest.raises(InvalidCursor):
        parse_cursor(text)


def test_the_highest_seq_is_exact_in_javascript_and_lua() -> None:
    """Browsers and the Lua scripts would round a seq above 2^53 - 1."""
    assert float(MAX_SEQ) == MAX_SEQ == 2**53 - 1


def test_message_n_has_the_entry_id_n_0() -> None:
    """§2: Redis Stream id of message n: `n-0`."""
    assert str(EntryId(7)) == "7-0"


def test_transient_entry_k_after_message_n_has_the_entry_id_n_k() -> None:
    """§2: of the k-th transient entry after message n: `n-k`."""
    assert EntryId.parse(b"7-3") == EntryId(7, 3)


def test_entry_ids_are_ordered_as_numbers() -> None:
    """§2: `XREAD` from `n-0` gives everything after message n, so 9 comes before 10."""
    shuffled = [EntryId(10, 0), EntryId(9, 10), EntryId(0, 1), EntryId(9, 2), EntryId(9, 0)]
    assert [str(each) for each in sorted(shuffled)] == ["0-1", "9-0", "9-2", "9-10", "10-0"]


@pytest.mark.parametrize("entry_id", [EntryId(0, 0), EntryId(1, 0), EntryId(MAX_SEQ, 999)])
def test_a_written_entry_id_is_read_back(entry_id: EntryId) -> None:
    """Parsing returns the id that was written."""
    assert EntryId.parse(str(entry_id).encode()) == entry_id


@pytest.mark.parametrize("project_id", ["a", "A", "0", "_", "-", "a" * 64, "Az09_-"])
def test_a_valid_project_id_is_returned_unchanged(project_id: str) -> None:
    """§1: `^[A-Za-z0-9_-]{1,64}$`, case kept."""
    assert check_project_id(project_id) == project_id


@pytest.mark.parametrize(
    "project_id", ["", "a" * 65, "a b", "a/b", "a:b", "a.b", "ä", "a\n", "{a}", "a\x00", "%61"]
)
def test_an_invalid_project_id_is_refused_by_field(project_id: str) -> None:
    """§1 and §4: `VALIDATION_FAILED`; the details name the field."""
    with pytest.raises(InvalidInput) as refused:
        check_project_id(project_id, "id")
    assert refused.value.field == "id"


@pytest.mark.parametrize("user_id", ["u", "a" * 128, "max@example.org", "ünï", "漢字", "a:b/c"])
def test_a_valid_user_id_is_returned_unchanged(user_id: str) -> None:
    """§3: 1 to 128 characters, no control characters or white space."""
    assert check_user_id(user_id) == user_id


@pytest.mark.parametrize(
    "user_id",
    ["", "a" * 129, "a b", "a\tb", "a\n", "\x00", "a\x7f", "a\u00a0b", "a\u2028", "\ud800"],
)
def test_an_invalid_user_id_is_refused(user_id: str) -> None:
    """§3: 1 to 128 characters, no control characters or white space."""
    assert not is_user_id(user_id)
