"""The health of Redis and Postgres, kept for each path that uses them.

For Redis: whether each server takes writes, which only the probes report
(`window/redis_probe.py`), and which lanes read their shards, which the lanes report. A command that
fails changes nothing here. No method talks to a server, and the queries only read attributes.
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

DOES_NOT_ANSWER = "does not answer"
REFUSES_WRITES = "refuses writes"
# A path counts as recovered after it worked for this long. The time doubles, up to a maximum, each
# time the path fails again within `_STEADY_S` of its recovery.
HOLD_S = 1.0
_MAX_HOLD_S = 30.0
_STEADY_S = 60.0
# A lane that reconnects within this time is not reported as a problem.
_LANE_GRACE_S = 1.0
_LANES_LOGGED_EVERY_S = 60.0


class ServerReport(msgspec.Struct, frozen=True):
    """What a probe found of one server; `problem` is None when the server took a write.

    `answers` is false when the server sent no answer: then it cannot be read either.
    """

    name: str
    shards: frozenset[int]
    problem: str | None = None
    answers: bool = True


class _Path:
    """Whether a path to a server works. A failure counts at once, a recovery when it has held."""

    __slots__ = ("_good_since", "_hold_s", "_recovered_at", "up")

    def __init__(self) -> None:
        self.up = True
        self._hold_s = HOLD_S
        self._good_since: float | None = None
        self._recovered_at = float("-inf")

    def observe(self, good: bool, now: float) -> bool:
        """Take an observation into account; tell whether it completes a recovery."""
        if not good:
            if self.up:
                recent = now - self._recovered_at < _STEADY_S
                self._hold_s = min(self._hold_s * 2, _MAX_HOLD_S) if recent else HOLD_S
            self.up = False
            self._good_since = None
            return False
        if self.up:
            return False
        if self._good_since is None:
            self._good_since = now
        if now - self._good_since < self._hold_s:
            return False
        self.up = True
        self._recovered_at = now
        return True


class _Server:
    __slots__ = ("path", "report")

    def __init__(self, report: ServerReport) -> None:
        self.path = _Path()
        self.report = report


class Health:
    """The state of the servers, and the callbacks for the recovery of Redis."""

    def __init__(self, observer: Observer, clock: Callable[[], float] = time.monotonic) -> None:
        self._observer = observer
        self._clock = clock
        self._postgres_up = True
        self._problem: str | None = None
        self._servers: dict[str, _Server] = {}
        self._unwritable: frozenset[int] = frozenset()
        self._unanswered: frozenset[int] = frozenset()
        # Shards of the lanes that have readers and cannot read, with the time since when.
        self._lost_lanes: dict[int, float] = {}
        # Whether a lane recovered since the last call of `saw_servers`.
        self._lanes_recovered = False
        self._lanes_path = _Path()
        self._newly_lost = 0
        self._lane_error = ""
        self._lanes_logged_at = float("-inf")
        self._suspected = asyncio.Event()
        self._on_redis_return: list[Callable[[], None]] = []
        self._on_lanes_return: list[Callable[[], None]] = []

    # Queries.

    @property
    def redis_up(self) -> bool:
        """Whether Redis has no problem now or had none a moment ago. For summaries."""
        return self._problem is None

    @property
    def redis_problem(self) -> str | None:
        """What is wrong with Redis, in a few words; None when nothing is."""
        return self._problem

    @property
    def redis_servers(self) -> list[tuple[str, str | None]]:
        """The servers that were probed, each with its problem or None."""
        return [(server.report.name, server.report.problem) for server in self._servers.values()]

    @property
    def delivers(self) -> bool:
        """Whether Redis delivers every commit: all servers take writes and all lanes read.

        When it is false, polls of Postgres deliver.
        """
        return not (self._unwritable or self._lost_lanes or self._lanes_recovered)

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
        """Tell whether the server of the shard answers, even if it takes no writes."""
        return shard not in self._unanswered

    def delivers_to(self, shard: int) -> bool:
        """Tell whether Redis delivers what is committed in the shard."""
        return shard not in self._unwritable and shard not in self._lost_lanes

    @property
    def postgres_up(self) -> bool:
        """Whether Postgres served the last probe."""
        return self._postgres_up

    # Callbacks.

    def on_redis_return(self, callback: Callable[[], None]) -> None:
        """Call `callback` each time a server takes writes again or all lanes read again."""
        self._on_redis_return.append(callback)

    def on_lanes_return(self, callback: Callable[[], None]) -> None:
        """Call `callback` after a lane reads again: it may have missed signals meanwhile."""
        self._on_lanes_return.append(callback)

    # Reports.

    def suspect(self) -> None:
        """Request a probe of the servers soon, because a call failed."""
        self._suspected.set()

    async def suspected(self) -> None:
        """Wait until `suspect` is called or a lane is lost."""
        self._suspected.clear()
        await self._suspected.wait()

    def lane_lost(self, shard: int, error: Exception) -> None:
        """Report that a lane with readers cannot read."""
        if shard not in self._lost_lanes:
            self._lost_lanes[shard] = self._clock()
            self._newly_lost += 1
            self._lane_error = str(error)
            self._suspected.set()

    def lane_reads(self, shard: int) -> None:
        """Report that a lane reads."""
        if self._lost_lanes.pop(shard, None) is not None:
            self._lanes_recovered = True

    def lane_unused(self, shard: int) -> None:
        """Report that a lane has no readers left."""
        self._lost_lanes.pop(shard, None)

    def saw_servers(self, reports: Iterable[ServerReport]) -> None:
        """Report what the probes found of all servers; update the state and call the callbacks."""
        now = self._clock()
        known, self._servers = self._servers, {}
        returned = False
        for report in reports:
            server = self._servers[report.name] = known.get(report.name) or _Server(report)
            server.report = report
            returned |= server.path.observe(report.problem is None, now)
        down = [server.report for server in self._servers.values() if not server.path.up]
        unwritable = frozenset[int]().union(*(report.shards for report in down))
        # A shard may also have moved from a server that is down to a healthy one.
        returned |= bool(self._unwritable - unwritable)
        self._unwritable = unwritable
        self._unanswered = frozenset[int]().union(
            *(report.shards for report in down if not report.answers)
        )
        lost_for_long = sum(now - at >= _LANE_GRACE_S for at in self._lost_lanes.values())
        returned |= self._lanes_path.observe(not lost_for_long, now)
        self._summarize(down, lost_for_long)
        self._log_lost_lanes(now)
        if self._lanes_recovered or returned:
            self._lanes_recovered = False
            _call(self._on_lanes_return)
        if returned:
            _call(self._on_redis_return)

    def saw_postgres(self, up: bool) -> None:
        """Report whether Postgres serves; a change is logged once."""
        if up == self._postgres_up:
            return
        self._postgres_up = up
        self._observer.postgres(up)
        if up:
            _log.info("postgres answers again")
        else:
            _log.warning("postgres does not answer: nothing can be appended")

    def _summarize(self, down: list[ServerReport], lost_lanes: int) -> None:
        """Set the problem of Redis; when it appears or ends, count and log that once."""
        was_healthy = self._problem is None
        self._problem = self._describe(down, lost_lanes)
        if was_healthy == (self._problem is None):
            return
        self._observer.redis(not was_healthy)
        if was_healthy:
            _log.warning(
                "redis is unhealthy: streams continue from the log",
                extra={"problem": self._problem},
            )
        else:
            _log.info("redis is healthy again")

    def _describe(self, down: list[ServerReport], lost_lanes: int) -> str | None:
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
        return ", ".join(problems) or None

    def _log_lost_lanes(self, now: float) -> None:
        if self._newly_lost and now - self._lanes_logged_at >= _LANES_LOGGED_EVERY_S:
            _log.warning(
                "lanes cannot read redis",
                extra={"lanes": self._newly_lost, "error": self._lane_error},
            )
            self._newly_lost = 0
            self._lanes_logged_at = now


def _call(callbacks: Iterable[Callable[[], None]]) -> None:
    for callback in callbacks:
        callback()
