"""The health of Redis for each path, and when a recovery counts (docs/design.md, Health)."""

from __future__ import annotations

import logging

import pytest

from streams.runtime.health import DOES_NOT_ANSWER, REFUSES_WRITES, Health, ServerReport
from streams.runtime.observer import Observer
from tests.support.health import ALL_SHARDS

_LOW = frozenset(range(100))
_HIGH = ALL_SHARDS - _LOW


class _Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class _Counting(Observer):
    def __init__(self) -> None:
        self.changes: list[bool] = []

    def redis(self, up: bool) -> None:
        self.changes.append(up)


class _Harness:
    def __init__(self) -> None:
        self.clock = _Clock()
        self.observer = _Counting()
        self.health = Health(self.observer, self.clock)
        self.recoveries = 0
        self.health.on_redis_return(self._recovered)

    def _recovered(self) -> None:
        self.recoveries += 1

    def probe(self, problem: str | None, *, answers: bool = True, after_s: float = 0.5) -> None:
        self.clock.now_s += after_s
        self.health.saw_servers([ServerReport("a", ALL_SHARDS, problem, answers)])


@pytest.fixture
def harness() -> _Harness:
    """A `Health` with a clock that the test moves."""
    return _Harness()


def test_a_minute_of_refused_writes_changes_the_state_twice(
    harness: _Harness, caplog: pytest.LogCaptureFixture
) -> None:
    """G7: down once and up once, with one log line each, although lanes reconnect meanwhile."""
    with caplog.at_level(logging.INFO, "streams.runtime.health"):
        for turn in range(120):
            harness.probe(REFUSES_WRITES)
            # A lane is closed and reconnects in every turn.
            harness.health.lane_lost(turn % 7, RuntimeError("closed"))
            harness.health.lane_reads(turn % 7)
        for _ in range(10):
            harness.probe(None)
    assert harness.observer.changes == [False, True]
    assert harness.recoveries == 1
    assert len(caplog.records) <= 4


def test_a_server_that_refuses_writes_is_still_read(harness: _Harness) -> None:
    """docs/design.md, Health: readers still read a Redis that refuses writes."""
    harness.probe(REFUSES_WRITES)
    assert not harness.health.can_write(0)
    assert harness.health.can_read(0)
    assert not harness.health.delivers
    assert harness.health.redis_problem == REFUSES_WRITES
    harness.probe(DOES_NOT_ANSWER, answers=False)
    assert not harness.health.can_read(0)


def test_a_recovery_counts_after_it_held_for_a_second(harness: _Harness) -> None:
    """docs/design.md, Health: a failure in between starts the second again."""
    harness.probe(DOES_NOT_ANSWER, answers=False)
    harness.probe(None)
    harness.probe(None)
    harness.probe(REFUSES_WRITES)
    harness.probe(None)
    harness.probe(None)
    assert harness.observer.changes == [False]
    harness.probe(None)
    assert harness.observer.changes == [False, True]
    assert harness.recoveries == 1


def test_a_server_that_fails_repeatedly_must_hold_for_longer_each_time(harness: _Harness) -> None:
    """`redis_up` does not flap when a server fails and recovers every two seconds."""
    for _ in range(40):
        harness.probe(REFUSES_WRITES)
        for _ in range(3):
            harness.probe(None)
    assert len(harness.observer.changes) <= 4


def test_only_the_shards_of_a_failed_cluster_node_are_unwritable(harness: _Harness) -> None:
    """docs/protocol.md §7: publishing to the other nodes continues."""
    health = harness.health
    health.saw_servers([
        ServerReport("a", _LOW), ServerReport("b", _HIGH, DOES_NOT_ANSWER, answers=False),
    ])  # fmt: skip
    assert health.can_write(min(_LOW))
    assert not health.can_write(min(_HIGH))
    assert health.writes_somewhere
    assert health.redis_problem == f"1 of 2 servers: {DOES_NOT_ANSWER}"
    assert not health.redis_up


def test_lost_lanes_make_the_poll_deliver_at_once_and_are_logged_together(
    harness: _Harness, caplog: pytest.LogCaptureFixture
) -> None:
    """G7: 200 lanes that are lost at once give one log line with their number."""
    for shard in range(200):
        harness.health.lane_lost(shard, RuntimeError("closed"))
    assert not harness.health.delivers
    assert not harness.health.delivers_to(7)
    with caplog.at_level(logging.WARNING, "streams.runtime.health"):
        harness.probe(None)
    (record,) = caplog.records
    assert vars(record)["lanes"] == 200
    assert harness.health.redis_up
    harness.probe(None)
    assert harness.health.redis_problem == "200 lanes not reading"


def test_lane_recovery_is_announced_before_delivery_by_redis_counts(harness: _Harness) -> None:
    """G9: a listener that may have missed removals is called before `delivers` is true."""
    writable_when_called: list[bool] = []
    harness.health.on_lanes_return(lambda: writable_when_called.append(harness.health.can_write(0)))
    harness.health.lane_lost(1, RuntimeError("closed"))
    harness.health.lane_reads(1)
    assert not harness.health.delivers
    harness.probe(None)
    assert writable_when_called == [True]
    assert harness.health.delivers
