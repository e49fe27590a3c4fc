"""The view of this process: itself, its parts, and the projects that have readers here.

What it costs is bounded: one pass over the tails and streams in memory, two statements. One project
is in `project_view.py`.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence

import msgspec

from service.access.identity import Caller
from service.console.asking import Missing, Stores, Turns
from service.console.part_health import PartHealth, Status
from service.console.rates import Rates
from service.streaming.connection import Connection
from streams.eventlog import EventLog
from streams.log.survey import LogSurvey
from streams.tail.tail import Tail

MAX_PROJECTS = 100


class ProcessView(msgspec.Struct, frozen=True, rename="camel"):
    """The process that answered. `workers` counts the processes behind its port."""

    id: str
    version: str
    pid: int
    uptime_seconds: float
    workers: int


class HealthView(msgspec.Struct, frozen=True):
    """The health of this process and of each of its parts."""

    status: Status
    parts: list[PartHealth]


class ProjectRow(msgspec.Struct, frozen=True, rename="camel"):
    """A project that has readers here. `lag_seqs`: what the log has and this tail has not."""

    project_id: str
    head_seq: int
    lag_seqs: int
    per_second_10s: float = msgspec.field(name="perSecond10s")
    per_second_60s: float = msgspec.field(name="perSecond60s")
    streams: int
    blocked: int
    tail_bytes: int


class Totals(msgspec.Struct, frozen=True, rename="camel"):
    """Sums over all projects with readers here that the caller may see, listed or not."""

    projects: int
    streams: int
    blocked: int
    tail_bytes: int
    per_second_10s: float = msgspec.field(name="perSecond10s")
    per_second_60s: float = msgspec.field(name="perSecond60s")


class Work(msgspec.Struct, frozen=True, rename="camel"):
    """Builds by status (ended ones of the last day) and unfinished answers, of all processes."""

    builds: dict[str, int] | None
    oldest_queued_seconds: float | None
    answers_under_way: int | None


class Overview(msgspec.Struct, frozen=True, rename="camel"):
    """The answer of `/v1/console/overview`.

    `work` is null for a caller who is limited to some projects; `missing` names the stores that did
    not answer.
    """

    process: ProcessView
    health: HealthView
    projects: list[ProjectRow]
    totals: Totals
    work: Work | None
    missing: list[Missing]


class Asked(msgspec.Struct, frozen=True):
    """What the stores said, for all who ask at the same time.

    `heads` are those that differ from this process's tails; None: Postgres did not answer.
    """

    heads: dict[str, int] | None
    work: Work
    missing: list[Missing]


async def ask_stores(log: EventLog, survey: LogSurvey, turns: Turns) -> Asked:
    """Ask Postgres for heads, builds and answers; each question is bounded."""
    stores = Stores(log, turns)
    tails = log.tails.all()
    known = [tail.project_id for tail in tails], [tail.last_seq for tail in tails]
    heads = await stores.postgres(lambda: log.log.heads_unlike(*known))
    counts = await stores.postgres(log.builds.counts)
    answers = await stores.postgres(lambda: survey.open_answers(None, limit=1))
    work = Work(
        builds=None if counts is None else dict(counts.by_status),
        oldest_queued_seconds=None if counts is None else round(counts.oldest_queued_s, 1),
        answers_under_way=None if answers is None else answers[1],
    )
    return Asked(heads, work, stores.missing)


def rows_of(
    caller: Caller,
    tails: Iterable[Tail],
    connections: Iterable[Connection],
    rates: Rates,
    asked: Asked,
) -> list[ProjectRow]:
    """Return a row for each project with readers here that the caller may see."""
    streams: dict[str, int] = {}
    blocked: dict[str, int] = {}
    for connection in connections:
        project_id = connection.project_id
        streams[project_id] = streams.get(project_id, 0) + 1
        if connection.wire.blocked:
            blocked[project_id] = blocked.get(project_id, 0) + 1
    rows = []
    for tail in tails:
        project_id = tail.project_id
        if caller.is_limited_from(project_id):
            continue
        # The tail may have moved on since the head was read.
        head = max(tail.last_seq, (asked.heads or {}).get(project_id, 0))
        rate = rates.of(project_id)
        rows.append(
            ProjectRow(
                project_id=project_id,
                head_seq=head,
                lag_seqs=head - tail.last_seq,
                per_second_10s=round(rate.short, 2),
                per_second_60s=round(rate.long, 2),
                streams=streams.get(project_id, 0),
                blocked=blocked.get(project_id, 0),
                tail_bytes=tail.size_bytes,
            )
        )
    return rows


def most_active(rows: Sequence[ProjectRow]) -> list[ProjectRow]:
    """Return at most `MAX_PROJECTS`: those that lag, then the busiest."""
    return heapq.nlargest(
        MAX_PROJECTS,
        rows,
        key=lambda row: (row.lag_seqs, row.per_second_10s, row.per_second_60s, row.streams),
    )


def totals_of(rows: Sequence[ProjectRow]) -> Totals:
    """Return the sums over the rows."""
    return Totals(
        projects=len(rows),
        streams=sum(row.streams for row in rows),
        blocked=sum(row.blocked for row in rows),
        tail_bytes=sum(row.tail_bytes for row in rows),
        per_second_10s=round(sum(row.per_second_10s for row in rows), 2),
        per_second_60s=round(sum(row.per_second_60s for row in rows), 2),
    )
