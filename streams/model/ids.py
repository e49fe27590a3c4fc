"""Seqs, stream entry ids, cursors, and the ids of projects and users: parsing and order. Pure.

No I/O, no framing, no key names.
"""

from __future__ import annotations

import re
from typing import NamedTuple, NewType, Self

from streams.model.errors import InvalidInput

Seq = NewType("Seq", int)
"""A message's number in its project: 1, 2, 3 … in commit order, without gaps. 0: before all."""

MAX_SEQ = 2**53 - 1
"""Lua and JavaScript hold larger integers only inexactly."""

_PROJECT_ID = re.compile(r"[A-Za-z0-9_-]{1,64}\Z")
_CURSOR = re.compile(r"(?:0|[1-9][0-9]{0,15})\Z")
_USER_ID_MAX = 128


class EntryId(NamedTuple):
    """Id of an entry of a project's Redis Stream. Ids compare as in Redis.

    `n-0` is message n; `n-k` with k ≥ 1 is the k-th transient entry after message n.
    """

    seq: int
    k: int = 0

    @classmethod
    def parse(cls, raw: bytes) -> Self:
        """Read `b"<seq>-<k>"`, as Redis writes it."""
        seq, _, k = raw.partition(b"-")
        return cls(int(seq), int(k))

    def __str__(self) -> str:
        return f"{self.seq}-{self.k}"


class InvalidCursor(InvalidInput):
    """The text of a `Last-Event-ID` is not a cursor."""


def parse_cursor(text: str) -> Seq:
    """Read a `Last-Event-ID`: a whole number without sign or leading zeros.

    Raises:
        InvalidCursor: the text is anything else, or the number is above `MAX_SEQ`.
    """
    if not _CURSOR.match(text) or int(text) > MAX_SEQ:
        raise InvalidCursor("Last-Event-ID", "is not a cursor")
    return Seq(int(text))


def check_project_id(value: str, field: str = "projectId") -> str:
    """Return the project id, or raise `InvalidInput` for `field`."""
    if not _PROJECT_ID.match(value):
        raise InvalidInput(field, "must match ^[A-Za-z0-9_-]{1,64}$")
    return value


def check_user_id(value: str, field: str = "userId") -> str:
    """Return the user id, or raise `InvalidInput` for `field`."""
    if not is_user_id(value):
        raise InvalidInput(
            field, "must be 1 to 128 characters without control characters or white space"
        )
    return value


def is_user_id(value: str) -> bool:
    """Tell whether the value is valid as a user id."""
    if not 1 <= len(value) <= _USER_ID_MAX:
        return False
    # isprintable is false for control characters, separators other than the space, and lone
    # surrogates.
    return value.isprintable() and " " not in value
