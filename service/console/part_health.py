"""The health of each part of this process, from what is known: no server is asked. Pure."""

from __future__ import annotations

import time
from typing import Literal

import msgspec

from streams.eventlog import EventLog

Status = Literal["healthy", "degraded", "unhealthy"]

# A poll that long ago is late: polls run twice a second, and may take two seconds each.
_POLL_LATE_S = 5.0


class PartHealth(msgspec.Struct, frozen=True):
    """A part, whether it is well, and what it does or lacks, in a few words."""

    name: str
    ok: bool
    state: str


def parts_of(log: EventLog, *, draining: bool) -> list[PartHealth]:
    """Return the parts: the servers first, then what this process runs."""
    schema = log.postgres.schema
    parts = [
        _known("postgres", log.postgres.problem),
        _known("schema", schema.problem or schema.note),
        _known("redis", log.health.redis_problem),
    ]
    servers = log.health.redis_servers
    if len(servers) > 1:
        parts += [_known(f"redis {name}", problem) for name, problem in servers]
    return [*parts, _lanes(log), _heads_poll(log), _pool(log), *_process(log, draining)]


def status_of(log: EventLog, parts: list[PartHealth]) -> Status:
    """Return the status that `/health` has, or degraded when only a part that it leaves out is ill.

    What is durable needs Postgres, its schema and this process.
    """
    ill = {part.name for part in parts if not part.ok}
    if ill & {"postgres", "process"} or log.postgres.schema.problem:
        return "unhealthy"
    return "degraded" if ill else "healthy"


def _known(name: str, problem: str | None) -> PartHealth:
    return PartHealth(name, problem is None, problem or "ok")


def _lanes(log: EventLog) -> PartHealth:
    lanes = log.tails.lanes
    needed, stuck = len(lanes.with_readers()), len(lanes.stuck())
    if stuck:
        return PartHealth("lanes", False, f"{stuck} of {needed} not reading")
    return PartHealth("lanes", True, f"{needed} reading")


def _heads_poll(log: EventLog) -> PartHealth:
    age_s = time.monotonic() - log.heads_poll.polled_at_s
    if age_s == float("inf"):
        return PartHealth("heads poll", False, "no poll yet")
    return PartHealth("heads poll", age_s < _POLL_LATE_S, f"{age_s:.1f} s ago")


def _pool(log: EventLog) -> PartHealth:
    use = log.database.pool_use
    state = f"{use.in_use} of {use.limit} connections in use"
    return PartHealth("database pool", use.in_use < use.limit, state)


def _process(log: EventLog, draining: bool) -> list[PartHealth]:
    running = log.running_parts
    failed = log.failed_part
    tasks = PartHealth(
        "tasks", failed is None, f"{len(running)} running" if failed is None else f"{failed} ended"
    )
    return [tasks, PartHealth("process", not draining and failed is None, _word(draining, failed))]


def _word(draining: bool, failed: str | None) -> str:
    if draining:
        return "draining"
    return "ok" if failed is None else f"{failed} ended"
