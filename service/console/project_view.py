"""One project's three tiers side by side: memory of this process, Redis, Postgres; and its work.

What it costs is bounded: at most `WINDOW_ENTRIES` ids from Redis without their data, four
statements that read at most a window or a page. The whole process is in `overview.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec

from service.console.asking import Missing, Stores, Turns
from service.console.seq_ranges import Holes, SeqRange, holes_between
from service.console.stream_rows import State, StreamRow, Waiting
from streams.eventlog import EventLog
from streams.log.survey import LogSurvey, OpenAnswer, ProjectSurvey
from streams.model.build import Build
from streams.model.events import format_time
from streams.tail.tail import Tail
from streams.window.survey import WindowSurvey
from streams.window.window import MAX_ENTRIES, WINDOW_MESSAGES

# More than the scripts of the service let into a stream: only other writers exceed it.
WINDOW_ENTRIES = MAX_ENTRIES + WINDOW_MESSAGES
_MAX_WORK = 50


class MemoryTier(msgspec.Struct, frozen=True, rename="camel"):
    """The tail: null seqs when it holds no message. `generation`: how often the log went back."""

    first_seq: int | None
    last_seq: int
    entries: int
    bytes: int
    max_bytes: int
    generation: int


class RedisTier(msgspec.Struct, frozen=True, rename="camel"):
    """The window. `entries` are all of the stream's; the rest is of the `walked` newest."""

    lo: int | None
    hi: int | None
    messages: int
    transient_entries: int
    entries: int
    walked: int
    bytes: int | None
    expires_in_seconds: float | None
    missing_seqs: int
    holes: list[SeqRange]


class PostgresTier(msgspec.Struct, frozen=True, rename="camel"):
    """The log. What is `counted` and missing is of the `range`: the newest seqs, as many as a
    window has.
    """

    first_seq: int | None
    head_seq: int
    range: SeqRange | None
    counted: int
    missing_seqs: int
    holes: list[SeqRange]


class BuildRow(msgspec.Struct, frozen=True, rename="camel"):
    """An unfinished build."""

    build_id: str
    user_id: str
    status: str
    attempt: int
    progress: float | None
    step: str | None
    worker_id: str | None
    created_at: str
    updated_at: str


class AnswerRow(msgspec.Struct, frozen=True, rename="camel"):
    """An unfinished answer."""

    message_id: str
    user_id: str
    reply_to_seq: int
    worker_id: str
    age_seconds: float


class ProjectView(msgspec.Struct, frozen=True, rename="camel"):
    """The answer of `/v1/console/projects/{id}`.

    A tier is null when its store did not answer (`missing` says so); `memory` is null when this
    process does not hold the project. `streams` are the most behind of `streams_total`.
    """

    project_id: str
    process_id: str
    name: str | None
    owner_id: str | None
    memory: MemoryTier | None
    redis: RedisTier | None
    postgres: PostgresTier | None
    waiting: dict[State, Waiting]
    streams: list[StreamRow]
    streams_total: int
    builds: list[BuildRow] | None
    answers: list[AnswerRow] | None
    missing: list[Missing]


class Asked(msgspec.Struct, frozen=True):
    """What the stores said of a project, for all who ask at the same time."""

    log: ProjectSurvey | None
    window: WindowSurvey | None
    builds: list[Build] | None
    answers: list[OpenAnswer] | None
    missing: list[Missing]

    @property
    def exists(self) -> bool:
        """Whether the project exists, or may: Postgres did not answer."""
        return self.log is not None or any(each.part == "postgres" for each in self.missing)


async def ask_stores(log: EventLog, survey: LogSurvey, turns: Turns, project_id: str) -> Asked:
    """Ask both stores, Redis beside Postgres; each question is bounded."""
    stores = Stores(log, turns)
    async with asyncio.TaskGroup() as group:
        window = group.create_task(
            stores.redis(project_id, lambda: log.window.survey(project_id, newest=WINDOW_ENTRIES))
        )
        found = await stores.postgres(lambda: survey.project(project_id, newest=WINDOW_MESSAGES))
        builds = await stores.postgres(lambda: _unfinished(log, project_id))
        answers = await stores.postgres(lambda: survey.open_answers(project_id, limit=_MAX_WORK))
    return Asked(found, window.result(), builds, answers and answers[0], stores.missing)


async def _unfinished(log: EventLog, project_id: str) -> list[Build]:
    running = await log.builds.list(project_id, status="in_progress", limit=_MAX_WORK)
    queued = await log.builds.list(project_id, status="queued", limit=_MAX_WORK)
    return [*running, *queued]


def memory_tier(tail: Tail | None) -> MemoryTier | None:
    """Describe a tail."""
    if tail is None:
        return None
    return MemoryTier(
        first_seq=tail.low_seq if tail.low_seq <= tail.last_seq else None,
        last_seq=tail.last_seq,
        entries=tail.end_index - tail.first_index,
        bytes=tail.size_bytes,
        max_bytes=tail.max_bytes,
        generation=tail.generation,
    )


def redis_tier(survey: WindowSurvey | None) -> RedisTier | None:
    """Describe a window: its messages must be a contiguous run."""
    if survey is None:
        return None
    seqs = [entry_id.seq for entry_id, _ in survey.entries if entry_id.k == 0]
    holes = holes_between(seqs, seqs[0], seqs[-1]) if seqs else Holes(0, [])
    return RedisTier(
        lo=seqs[0] if seqs else None,
        hi=seqs[-1] if seqs else None,
        messages=len(seqs),
        transient_entries=len(survey.entries) - len(seqs),
        entries=survey.total,
        walked=len(survey.entries),
        bytes=survey.size_bytes,
        expires_in_seconds=survey.expires_in_s,
        missing_seqs=holes.missing,
        holes=holes.first,
    )


def postgres_tier(survey: ProjectSurvey | None) -> PostgresTier | None:
    """Describe the log's newest range, which must have every seq from the first on."""
    if survey is None:
        return None
    first, head = survey.first_seq, survey.head
    if first is None:
        # A head without any message is a hole too, unless nothing was ever written.
        first = 1
    low = max(first, head - WINDOW_MESSAGES + 1)
    holes = holes_between(survey.newest, low, head)
    return PostgresTier(
        first_seq=survey.first_seq,
        head_seq=head,
        range=SeqRange(low, head) if low <= head else None,
        counted=len(survey.newest),
        missing_seqs=holes.missing,
        holes=holes.first,
    )


def build_rows(builds: Sequence[Build] | None) -> list[BuildRow] | None:
    """Describe builds without their request and result, which are content."""
    if builds is None:
        return None
    return [
        BuildRow(
            build_id=build.id,
            user_id=build.user_id,
            status=build.status,
            attempt=build.attempt,
            progress=build.progress,
            step=build.step,
            worker_id=build.worker_id,
            created_at=format_time(build.created_at),
            updated_at=format_time(build.updated_at),
        )
        for build in builds
    ]


def answer_rows(answers: Sequence[OpenAnswer] | None) -> list[AnswerRow] | None:
    """Describe answers."""
    if answers is None:
        return None
    return [
        AnswerRow(
            message_id=answer.id,
            user_id=answer.user_id,
            reply_to_seq=answer.message_seq,
            worker_id=answer.worker_id,
            age_seconds=round(answer.age_s, 1),
        )
        for answer in answers
    ]
