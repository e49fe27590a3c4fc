"""The limits that one process keeps: docs/protocol.md §6, Limits."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from service.access.limits import StreamSlots


def test_limit_of_a_user_in_a_project() -> None:
    """§6: per user in a project; another project of the same user is counted apart."""
    slots = StreamSlots(per_user=2, per_project=0, in_all=0)
    assert [slots.acquire("p", "u") for _ in range(3)] == [None, None, "user"]
    assert slots.acquire("q", "u") is None
    assert slots.acquire("p", "v") is None


def test_limit_of_a_project() -> None:
    """§6: per project and process."""
    slots = StreamSlots(per_user=0, per_project=2, in_all=0)
    assert [slots.acquire("p", user) for user in "abc"] == [None, None, "project"]
    assert slots.acquire("q", "a") is None


def test_limit_of_the_process() -> None:
    """§6: per process."""
    slots = StreamSlots(per_user=0, per_project=0, in_all=2)
    assert [slots.acquire(project, "u") for project in "abc"] == [None, None, "process"]
    slots.release("a", "u")
    assert slots.acquire("c", "u") is None


def test_zero_is_no_limit() -> None:
    """§6: 0 turns a limit off."""
    slots = StreamSlots(per_user=0, per_project=0, in_all=0)
    assert {slots.acquire("p", "u") for _ in range(1000)} == {None}


def test_refusal_counts_nothing() -> None:
    """A refused stream holds no place."""
    slots = StreamSlots(per_user=1, per_project=5, in_all=5)
    slots.acquire("p", "u")
    for _ in range(10):
        assert slots.acquire("p", "u") == "user"
    assert slots.open == 1


def test_release_of_nothing_is_an_error() -> None:
    """A place given back twice would lift the limit for ever."""
    slots = StreamSlots(per_user=1, per_project=1, in_all=1)
    slots.acquire("p", "u")
    with pytest.raises(ValueError):
        slots.release("p", "v")
    slots.release("p", "u")
    with pytest.raises(ValueError):
        slots.release("p", "u")
    assert (slots.open, slots.tracked) == (0, 0)


class SlotsAgainstAModel(RuleBasedStateMachine):
    """Streams open and close in any order; a plain count of them is the truth."""

    names = st.sampled_from("abc")

    def __init__(self) -> None:
        super().__init__()
        self.slots = StreamSlots(per_user=2, per_project=4, in_all=7)
        self.held: Counter[tuple[str, str]] = Counter()

    @rule(project=names, user=names)
    def acquire(self, project: str, user: str) -> None:
        of_project = sum(n for (held_in, _), n in self.held.items() if held_in == project)
        if self.held[project, user] >= 2:
            expected = "user"
        elif of_project >= 4:
            expected = "project"
        elif self.held.total() >= 7:
            expected = "process"
        else:
            expected = None
            self.held[project, user] += 1
        assert self.slots.acquire(project, user) == expected

    @rule(project=names, user=names)
    def release(self, project: str, user: str) -> None:
        if self.held[project, user]:
            self.slots.release(project, user)
            self.held[project, user] -= 1
        else:
            with pytest.raises(ValueError):
                self.slots.release(project, user)

    @invariant()
    def only_open_streams_are_remembered(self) -> None:
        users = [key for key, count in self.held.items() if count]
        assert self.slots.open == self.held.total()
        assert self.slots.tracked == len(users) + len({project for project, _ in users})


TestSlotsAgainstAModel = SlotsAgainstAModel.TestCase
