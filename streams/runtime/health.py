"""What is known of Redis and Postgres, for each path that uses them.

Of Redis: whether each server takes writes, by probes alone (`probe.py`), and which lanes read
their shards, by the lanes themselves. A command that fails is its caller's matter: it changes
nothing here. Questions are attribute reads; nothing here talks to a server.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable

import msgspec

from streams.model.shards import SHARDS
from streams.runtime.observer import Observer

_log = logging.getLogger(__name__)

ALL_SHARDS = frozenset(range(SHARDS))
DOES_NOT_ANSWER = "does not answer"
REFUSES_WRITES = "refuses writes"
# A path that came back is believed after it held this long; twice as long each time that it then
# fails again within a minute.
HOLD_S = 1.0
_HOLD_MOST_S = 30.0
_STEADY_S = 60.0
# A lane that is connected anew within this time is no outage.
_LANE_GRACE_S = 1.0
_LANES_LOGGED_EVERY_S = 60.0


class ServerReport(msgspec.Struct, frozen=True):
    """What a probe found of one server; `problem` is none when it took a write.

    `answers` is false when nothing came back: then it is not asked to read either.
    """

    name: str
    shards: frozenset[int]
    problem: str | None = None
    answers: bool = True


class _Path:
    """Whether a way to a server works. A failure counts at once, a return when it has held."""

    __slots__ = ("_good_since", "_hold_s", "_returned_at", "up")

    def __init__(self) -> None:
        self.up = True
        self._hold_s = HOLD_S
        self._good_since: float | None = None
        self._returned_at = float("-inf")

    def saw(self, good: bool, now: float, *, at_once: bool = False) -> bool:
        """Note what was seen; tell whether the path came back by it."""
        if not good:
            if self.up:
                recent = now - self._returned_at < _STEADY_S
                self._hold_s = min(self._hold_s * 2, _HOLD_MOST_S) if recent else HOLD_S
            self.up = False
            self._good_since = None
            return False
        if self.up:
            return False
        if self._good_since is None:
            self._good_since = now
        if now - self._good_since < self._hold_s and not at_once:
            return False
        self.up = True
        self._returned_at = now
        return True


class _Server:
    __slots__ = ("path", "report")

    def __init__(self, report: ServerReport) -> None:
        self.path = _Path()
        self.report = report


class Health:
    """What is known of the servers, and who wants to know when Redis comes back."""

    def __init__(self, observer: Observer, clock: Callable[[], float] = time.monotonic) -> None:
        self._observer = observer
        self._clock = clock
        self._postgres_up = True
        self._problem: str | None = None
        self._servers: dict[str, _Server] = {}
        self._unwritable: frozenset[int] = frozenset()
        self._unanswered: frozenset[int] = frozenset()
        # The lanes that have readers and do not read, and since when; and whether any came back
        # since the last judgement.
        self._lost_lanes: dict[int, float] = {}
        self._lanes_came_back = False
        self._lanes_path = _Path()
        self._newly_lost = 0
        self._lane_error = ""
        self._lanes_logged_at = float("-inf")
        self._suspected = asyncio.Event()
        self._on_redis_return: list[Callable[[], None]] = []
        self._on_lanes_return: list[Callable[[], None]] = []

    # What is asked.

    @property
    def redis_up(self) -> bool:
        """Whether nothing is wrong with Redis, or was a moment ago. For summaries."""
        return self._problem is None

    @property
    def redis_problem(self) -> str | None:
        """What is wrong with Redis, in a few words."""
        return self._problem

    @property
    def delivers(self) -> bool:
        """Whether all that is committed arrives by Redis: every server writes, every lane reads.

        Where it is false the polls of the database deliver.
        """
        return not (self._unwritable or self._lost_lanes or self._lanes_came_back)

    @property
    def writes_somewhere(self) -> bool:
        """Whether any server takes writes."""
        return len(self._unwritable) < SHARDS

    @property
    def writes_everywhere(self) -> bool:
        """Whether every server takes writes."""
        return not self._unwritable

    def can_write(self, shard: int) -> bool:
        """Tell whether the server of the shard takes writes."""
        return shard not in self._unwritable

    def can_read(self, shard: int) -> bool:
        """Tell whether the server of the shard answers, if only to reads."""
        return shard not in self._unanswered

    def delivers_to(self, shard: int) -> bool:
        """Tell whether what is committed in the shard arrives by Redis."""
        return shard not in self._unwritable and shard not in self._lost_lanes

    @property
    def postgres_up(self) -> bool:
        """Whether Postgres answered last."""
        return self._postgres_up

    # Who is told.

    def on_redis_return(self, callback: Callable[[], None]) -> None:
        """Call `callback` each time a server takes writes again, or all lanes read again."""
        self._on_redis_return.append(callback)

    def on_lanes_return(self, callback: Callable[[], None]) -> None:
        """Call `callback` after any lane came back: signals may have been missed meanwhile."""
        self._on_lanes_return.append(callback)

    # Who tells.

    def suspect(self) -> None:
        """Have the servers probed soon: a call failed."""
        self._suspected.set()

    async def suspected(self) -> None:
        """Wait until a call failed."""
        self._suspected.clear()
        await self._suspected.wait()

    def lane_lost(self, shard: int, error: Exception) -> None:
        """Note that a lane with readers does not read."""
        if shard not in self._lost_lanes:
            self._lost_lanes[shard] = self._clock()
            self._newly_lost += 1
            self._lane_error = str(error)
            self._suspected.set()

    def lane_reads(self, shard: int) -> None:
        """Note that a lane reads."""
        if self._lost_lanes.pop(shard, None) is not None:
            self._lanes_came_back = True

    def lane_unused(self, shard: int) -> None:
        """Note that a lane has no readers any more."""
        self._lost_lanes.pop(shard, None)

    def saw_servers(self, reports: Iterable[ServerReport], *, at_once: bool = False) -> None:
        """Take over what the probes found of all servers, and judge.

        `at_once`: believe a return without waiting whether it holds.
        """
        now = self._clock()
        known, self._servers = self._servers, {}
        returned = False
        for report in reports:
            server = self._servers[report.name] = known.get(report.name) or _Server(report)
            server.report = report
            returned |= server.path.saw(report.problem is None, now, at_once=at_once)
        down = [server.report for server in self._servers.values() if not server.path.up]
        unwritable = frozenset[int]().union(*(report.shards for report in down))
        # Also shards that moved from a server that is down to one that is well.
        returned |= bool(self._unwritable - unwritable)
        self._unwritable = unwritable
        self._unanswered = frozenset[int]().union(
            *(report.shards for report in down if not report.answers)
        )
        lost_for_long = sum(now - at >= _LANE_GRACE_S for at in self._lost_lanes.values())
        returned |= self._lanes_path.saw(not lost_for_long, now, at_once=at_once)
        self._note(down, lost_for_long)
        self._log_lost_lanes(now)
        if self._lanes_came_back or returned:
            self._lanes_came_back = False
            _call(self._on_lanes_return)
        if returned:
            _call(self._on_redis_return)

    def saw_redis(self, up: bool) -> None:
        """Note that the only server takes writes or does not answer; it is believed at once."""
        problem = None if up else DOES_NOT_ANSWER
        self.saw_servers([ServerReport("redis", ALL_SHARDS, problem, answers=up)], at_once=True)

    def saw_postgres(self, up: bool) -> None:
        """Note that Postgres answered or did not; a change is logged once."""
        if up == self._postgres_up:
            return
        self._postgres_up = up
        self._observer.postgres(up)
        if up:
            _log.info("postgres answers again")
        else:
            _log.warning("postgres does not answer: nothing can be appended")

    def _note(self, down: list[ServerReport], lost_lanes: int) -> None:
        was_well = self._problem is None
        problems = []
        if down:
            words = {report.problem for report in down if report.problem is not None}
            word = words.pop() if len(words) == 1 else None
            if len(self._servers) == 1:
                problems.append(word or "comes back")
            else:
                count = f"{len(down)} of {len(self._servers)} servers"
                problems.append(f"{count}: {word or 'no writes'}")
        if not self._lanes_path.up:
            problems.append(f"{lost_lanes} lanes not reading" if lost_lanes else "lanes come back")
        self._problem = ", ".join(problems) or None
        if was_well == (self._problem is None):
            return
        self._observer.redis(not was_well)
        if was_well:
            _log.warning(
                "redis is not well: streams go on from the log", extra={"problem": self._problem}
            )
        else:
            _log.info("redis is well again")

    def _log_lost_lanes(self, now: float) -> None:
        if self._newly_lost and now - self._lanes_logged_at >= _LANES_LOGGED_EVERY_S:
            _log.warning(
                "lanes lost redis", extra={"lanes": self._newly_lost, "error": self._lane_error}
            )
            self._newly_lost = 0
            self._lanes_logged_at = now


def _call(callbacks: Iterable[Callable[[], None]]) -> None:
    for callback in callbacks:
        callback()
