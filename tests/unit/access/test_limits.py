"""The limits that one process keeps: PROTOCOL.md §6, Limits."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from service.access.limits import StreamSlots, TokenBucket


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_burst_then_rate() -> None:
    """§6: 50 posts a second with bursts of 200."""
    clock = Clock()
    bucket = TokenBucket(50, 200, clock)
    assert [bucket.take() for _ in range(200)] == [0.0] * 200
    assert bucket.take() == pytest.approx(0.02)
    clock.now_s += 1
    assert [bucket.take() for _ in range(50)] == [0.0] * 50
    assert bucket.take() > 0


def test_refusal_costs_nothing() -> None:
    """Asking again while refused does not push the time further away."""
    clock = Clock()
    bucket = TokenBucket(1, 1, clock)
    bucket.take()
    assert [bucket.take() for _ in range(5)] == [1.0] * 5
    clock.now_s += 1
    assert bucket.take() == 0


def test_a_token_given_back_is_there_again_and_never_above_the_burst() -> None:
    """§6: a post refused with 503 costs nothing, and brings nothing."""
    bucket = TokenBucket(1, 2, Clock())
    bucket.take()
    bucket.take()
    bucket.give_back()
    assert bucket.take() == 0
    for _ in range(5):
        bucket.give_back()
    assert [bucket.take() for _ in range(2)] == [0.0, 0.0]
    assert bucket.take() > 0


def test_rate_zero_is_no_limit() -> None:
    """§6: 0 turns a limit off."""
    bucket = TokenBucket(0, 0, Clock())
    assert [bucket.take() for _ in range(1000)] == [0.0] * 1000
    assert bucket.is_full()


def test_clock_stepping_back_takes_nothing() -> None:
    """A clock that steps back neither empties the bucket nor fills it twice."""
    clock = Clock()
    bucket = TokenBucket(1, 2, clock)
    bucket.take()
    clock.now_s -= 500
    assert bucket.take() == 0
    clock.now_s += 500
    assert bucket.take() > 0


def test_full_again_after_rest() -> None:
    """A bucket at rest is as good as new, so it need not be kept."""
    clock = Clock()
    bucket = TokenBucket(2, 4, clock)
    bucket.take()
    assert not bucket.is_full()
    clock.now_s += 0.5
    assert bucket.is_full()


@pytest.mark.parametrize("rate, burst", [(-1, 5), (1, 0), (1, 0.5)])
def test_bucket_that_could_never_give_is_refused(rate: float, burst: float) -> None:
    """A limit that lets nothing through is a mistake, not a limit."""
    with pytest.raises(ValueError):
        TokenBucket(rate, burst, Clock())


@given(
    rate=st.integers(1, 100),
    burst=st.integers(1, 50),
    pauses_ms=st.lists(st.integers(0, 2000), max_size=200),
)
def test_never_more_than_burst_and_rate(rate: int, burst: int, pauses_ms: list[int]) -> None:
    """Over any time t no more than burst + rate * t are let through."""
    clock = Clock()
    bucket = TokenBucket(rate, burst, clock)
    passed = 0
    for pause_ms in pauses_ms:
        clock.now_s += pause_ms / 1000
        passed += bucket.take() == 0
        assert passed <= burst + rate * (clock.now_s - 1000) + 1e-6


@given(
    rate=st.integers(1, 100),
    burst=st.integers(1, 50),
    extra_ms=st.integers(min_value=1, max_value=50),
)
def test_promised_wait_is_enough(rate: int, burst: int, extra_ms: int) -> None:
    """§4: who waits for `Retry-After` gets through."""
    clock = Clock()
    bucket = TokenBucket(rate, burst, clock)
    while not (wait_s := bucket.take()):
        pass
    clock.now_s += wait_s + extra_ms / 1000
    assert bucket.take() == 0


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
