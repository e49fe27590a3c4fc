"""The figures of `seqstream load`: a histogram with a bound on its error and on its memory."""

from __future__ import annotations

import random

import pytest

from service.operate.load_figures import Latencies, LoadCounters


def test_a_quantile_is_at_most_three_percent_low() -> None:
    """Against the exact value, over six orders of magnitude."""
    rng = random.Random(1)
    values = sorted(int(10 ** rng.uniform(0, 7)) for _ in range(5000))
    latencies = Latencies()
    for value in values:
        latencies.record(value)
    for share in (0.01, 0.5, 0.9, 0.99, 1.0):
        exact = values[max(int(share * len(values)) - 1, 0)]
        assert exact * 0.968 - 1 <= latencies.quantile_us(share) <= exact


@pytest.mark.parametrize("value", [0, 1, 31, 32, 63, 64, 65, 1000, 2**35])
def test_a_value_is_counted_in_its_bucket(value: int) -> None:
    """Also at the edges of buckets."""
    latencies = Latencies()
    latencies.record(value)
    assert value - value // 32 <= latencies.quantile_us(0.5) <= value


@pytest.mark.parametrize("value", [-5, 2**80])
def test_an_impossible_value_is_counted_at_the_edge(value: int) -> None:
    """A clock that goes back, or a peer that lies, breaks nothing."""
    latencies = Latencies()
    latencies.record(value)
    assert latencies.count == 1


def test_no_values_have_no_summary() -> None:
    """A run in which nothing arrived."""
    assert Latencies().summary() is None
    assert Latencies().quantile_us(0.5) == 0


def test_the_texts_of_errors_are_bounded() -> None:
    """They come from a peer, which must not choose how many are kept."""
    counters = LoadCounters()
    for number in range(1000):
        counters.note_error(f"error {number}")
        counters.note_interruption("x" * 10_000 + str(number))
    assert len(counters.post_errors) <= 51
    assert sum(counters.post_errors.values()) == 1000
    assert max(map(len, counters.interruptions)) <= 120
