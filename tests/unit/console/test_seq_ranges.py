"""Holes between seqs: what a console calls missing."""

from __future__ import annotations

import pytest

from service.console.seq_ranges import MAX_HOLES, SeqRange, holes_between


@pytest.mark.parametrize(
    ("seqs", "low", "high", "missing", "runs"),
    [
        ([1, 2, 3], 1, 3, 0, []),
        ([], 1, 0, 0, []),
        ([], 3, 5, 3, [(3, 5)]),
        ([1, 4], 1, 4, 2, [(2, 3)]),
        ([2, 3], 1, 3, 1, [(1, 1)]),
        ([1, 2], 1, 4, 2, [(3, 4)]),
        ([1, 3, 5], 1, 6, 3, [(2, 2), (4, 4), (6, 6)]),
        ([1, 2, 9], 2, 4, 2, [(3, 4)]),
        ([1, 1, 2], 1, 2, 0, []),
    ],
)
def test_what_is_missing_of_a_range(
    seqs: list[int], low: int, high: int, missing: int, runs: list[tuple[int, int]]
) -> None:
    """At its beginning, within it and at its end; what is outside does not count."""
    found = holes_between(seqs, low, high)
    assert (found.missing, found.first) == (missing, [SeqRange(*run) for run in runs])


def test_all_holes_are_counted_and_the_first_are_listed() -> None:
    """The answer is bounded, however broken the window is."""
    found = holes_between(range(1, 1000, 2), 1, 999)
    assert (found.missing, len(found.first)) == (499, MAX_HOLES)
