"""Ranges of seqs, and the holes between them. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

MAX_HOLES: Final = 20
"""Holes that are listed; all of them are counted."""


class SeqRange(msgspec.Struct, frozen=True, rename="camel"):
    """The seqs `from_seq` to `to_seq`, both included."""

    from_seq: int
    to_seq: int


class Holes(msgspec.Struct, frozen=True):
    """Seqs that are missing: the first `MAX_HOLES` runs of them, and how many seqs in all."""

    missing: int
    first: list[SeqRange]


def holes_between(seqs: Iterable[int], low: int, high: int) -> Holes:
    """Return what is missing of low..high; `seqs` ascend and may lie outside of it."""
    runs: list[SeqRange] = []
    missing = 0
    expected = low
    for seq in seqs:
        if seq > high:
            break
        if seq > expected:
            missing += seq - expected
            if len(runs) < MAX_HOLES:
                runs.append(SeqRange(expected, seq - 1))
        expected = max(expected, seq + 1)
    if expected <= high:
        missing += high - expected + 1
        if len(runs) < MAX_HOLES:
            runs.append(SeqRange(expected, high))
    return Holes(missing, runs)
