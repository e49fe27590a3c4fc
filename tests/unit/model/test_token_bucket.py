"""Token buckets: docs/protocol.md §6, limits."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.model.token_bucket import TokenBucket, TokenBuckets


class Clock:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


def test_a_burst_is_followed_by_the_rate() -> None:
    """§6: 50 posts a second with bursts of 200."""
    clock = Clock()
    bucket = TokenBucket(50, 200, clock)
    assert [bucket.take() for _ in range(200)] == [0.0] * 200
    assert bucket.take() == pytest.approx(0.02)
    clock.now_s += 1
    assert [bucket.take() for _ in range(50)] == [0.0] * 50
    assert bucket.take() > 0


def test_a_refused_take_costs_nothing() -> None:
    """Repeated calls while refused do not extend the wait."""
    clock = Clock()
    bucket = TokenBucket(1, 1, clock)
    bucket.take()
    assert [bucket.take() for _ in range(5)] == [1.0] * 5
    clock.now_s += 1
    assert bucket.take() == 0


def test_a_returned_token_can_be_taken_again_up_to_the_burst() -> None:
    """§6: a post refused with 503 does not count, and adds no token."""
    bucket = TokenBucket(1, 2, Clock())
    bucket.take()
    bucket.take()
    bucket.give_back()
    assert bucket.take() == 0
    for _ in range(5):
        bucket.give_back()
    assert [bucket.take() for _ in range(2)] == [0.0, 0.0]
    assert bucket.take() > 0


def test_a_rate_of_zero_is_no_limit() -> None:
    """§6: 0 turns a limit off."""
    bucket = TokenBucket(0, 0, Clock())
    assert [bucket.take() for _ in range(1000)] == [0.0] * 1000


def test_a_clock_that_steps_back_changes_nothing() -> None:
    """It neither empties the bucket nor fills it twice."""
    clock = Clock()
    bucket = TokenBucket(1, 2, clock)
    bucket.take()
    clock.now_s -= 500
    assert bucket.take() == 0
    clock.now_s += 500
    assert bucket.take() > 0


@pytest.mark.parametrize("rate, burst", [(-1, 5), (1, 0), (1, 0.5)])
def test_a_bucket_that_never_has_a_token_is_refused(rate: float, burst: float) -> None:
    """A limit that refuses everything is a mistake."""
    with pytest.raises(ValueError):
        TokenBucket(rate, burst, Clock())


@given(
    rate=st.integers(1, 100),
    burst=st.integers(1, 50),
    pauses_ms=st.lists(st.integers(0, 2000), max_size=200),
)
def test_the_burst_and_the_rate_are_never_exceeded(
    rate: int, burst: int, pauses_ms: list[int]
) -> None:
    """Within any time t at most burst + rate * t tokens are taken."""
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
def test_the_returned_wait_is_long_enough(rate: int, burst: int, extra_ms: int) -> None:
    """§4: a client that waits for `Retry-After` is served."""
    clock = Clock()
    bucket = TokenBucket(rate, burst, clock)
    while not (wait_s := bucket.take()):
        pass
    clock.now_s += wait_s + extra_ms / 1000
    assert bucket.take() == 0


def test_each_key_has_a_bucket_and_the_oldest_is_evicted() -> None:
    """An evicted key starts again with a full bucket."""
    buckets = TokenBuckets[str](1, 1, Clock(), most=2)
    assert buckets.take("a") == 0
    assert buckets.take("a") > 0
    assert buckets.take("b") == 0
    assert buckets.take("c") == 0
    assert buckets.take("a") == 0
