"""What is known of Redis, path by path, and when a return is believed (docs/design.md, Health)."""

from __future__ import annotations

import logging

import pytest

from streams.runtime.health import ALL_SHARDS, DOES_NOT_ANSWER, REFUSES_WRITES, Health, ServerReport
from streams.runtime.observer import Observer

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


class _World:
    def __init__(self) -> None:
        self.clock = _Clock()
        self.observer = _Counting()
        self.health = Health(self.observer, self.clock)
        self.returns = 0
        self.health.on_redis_return(self._returned)

    def _returned(self) -> None:
        self.returns += 1

    def probe(self, problem: str | None, *, answers: bool = True, after_s: float = 0.5) -> None:
        self.clock.now_s += after_s
        self.health.saw_servers([ServerReport("a", ALL_SHARDS, problem, answers)])


@pytest.fixture
def world() -> _World:
    """A health with a clock of the test's."""
    return _World()


def test_a_minute_of_refused_writes_changes_the_verdict_twice(
    world: _World, caplog: pytest.LogCaptureFixture
) -> None:
    """G7: down once and up once, and a line for each, whatever the lanes do meanwhile."""
    with caplog.at_level(logging.INFO, "streams.runtime.health"):
        for turn in range(120):
            world.probe(REFUSES_WRITES)
            # A lane that is closed and connects anew, again and again.
            world.health.lane_lost(turn % 7, RuntimeError("closed"))
            world.health.lane_reads(turn % 7)
        for _ in range(10):
            world.probe(None)
    assert world.observer.changes == [False, True]
    assert world.returns == 1
    assert len(caplog.records) <= 4


def test_a_server_that_refuses_writes_is_read_still(world: _World) -> None:
    """DESIGN, Health: a Redis that refuses writes still delivers by its reads or the poll."""
    world.probe(REFUSES_WRITES)
    assert not world.health.can_write(0)
    assert world.health.can_read(0)
    assert not world.health.delivers
    assert world.health.redis_problem == REFUSES_WRITES
    world.probe(DOES_NOT_ANSWER, answers=False)
    assert not world.health.can_read(0)


def test_a_return_is_believed_after_it_held(world: _World) -> None:
    """DESIGN, Health: one answer is no return, and one that failed in between begins anew."""
    world.probe(DOES_NOT_ANSWER, answers=False)
    world.probe(None)
    world.probe(None)
    world.probe(REFUSES_WRITES)
    world.probe(None)
    world.probe(None)
    assert world.observer.changes == [False]
    world.probe(None)
    assert world.observer.changes == [False, True]
    assert world.returns == 1


def test_a_server_that_comes_and_goes_is_believed_later_each_time(world: _World) -> None:
    """`redis_up` does not flap with a server at its limit."""
    for _ in range(40):
        world.probe(REFUSES_WRITES)
        for _ in range(3):
            world.probe(None)
    assert len(world.observer.changes) <= 4


def test_of_a_cluster_only_the_shards_of_the_dead_server_are_left_out(world: _World) -> None:
    """§7: a dead node is seen, and publishing to the others goes on."""
    health = world.health
    health.saw_servers([
        ServerReport("a", _LOW), ServerReport("b", _HIGH, DOES_NOT_ANSWER, answers=False),
    ])  # fmt: skip
    assert health.can_write(min(_LOW))
    assert not health.can_write(min(_HIGH))
    assert health.writes_somewhere
    assert health.redis_problem == f"1 of 2 servers: {DOES_NOT_ANSWER}"
    assert not health.redis_up


def test_lost_lanes_have_the_poll_deliver_at_once_and_are_said_together(
    world: _World, caplog: pytest.LogCaptureFixture
) -> None:
    """G7: 200 lanes lost at once are one line with their number."""
    for shard in range(200):
        world.health.lane_lost(shard, RuntimeError("closed"))
    assert not world.health.delivers
    assert not world.health.delivers_to(7)
    with caplog.at_level(logging.WARNING, "streams.runtime.health"):
        world.probe(None)
    (record,) = caplog.records
    assert vars(record)["lanes"] == 200
    assert world.health.redis_up
    world.probe(None)
    assert world.health.redis_problem == "200 lanes not reading"


def test_lanes_that_came_back_are_told_before_delivery_is_trusted(world: _World) -> None:
    """G9: notices of removals may have been missed: who trusts them is told first."""
    trusted: list[bool] = []
    world.health.on_lanes_return(lambda: trusted.append(world.health.can_write(0)))
    world.health.lane_lost(1, RuntimeError("closed"))
    world.health.lane_reads(1)
    assert not world.health.delivers
    world.probe(None)
    assert trusted == [True]
    assert world.health.delivers
