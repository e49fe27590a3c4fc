"""The console of one process: what its routes ask for, put together from the views.

Who may ask is checked in `routes/console.py`. Everything here is read only and bounded, and answers
with what it has when a store is away.
"""

from __future__ import annotations

import asyncio
import os
import time

import msgspec

from service.access.identity import Caller
from service.console import overview, project_view, stream_rows
from service.console.asking import Missing, Stores, Turns
from service.console.leg_ring import LegRow
from service.console.leg_watch import LegWatches
from service.console.overview import HealthView, Overview, ProcessView
from service.console.part_health import parts_of, status_of
from service.console.project_view import ProjectView
from service.console.rate_sampler import RateSampler
from service.streaming.open_streams import OpenStreams
from service.telemetry.metrics import Metrics
from streams.eventlog import EventLog
from streams.log.survey import LogSurvey
from streams.model.errors import LogUnavailable, ProjectNotFound
from streams.model.ids import EntryId
from streams.runtime.owned_tasks import end
from streams.runtime.single_flight import SingleFlight


class Legs(msgspec.Struct, frozen=True, rename="camel"):
    """The answer of `/v1/console/projects/{id}/legs`.

    `watch_id` names the ring that numbers the events: another one begins at 1 again. It is null
    while no store can say where the project's stream begins. `next` is the `after` of the next
    question.
    """

    watch_id: str | None
    next: int
    events: list[LegRow]
    missing: list[Missing]


class Console:
    """The views of one process. Equal questions at the same time share their answers."""

    def __init__(
        self, log: EventLog, streams: OpenStreams, metrics: Metrics, *, version: str
    ) -> None:
        self._log = log
        self._streams = streams
        self._metrics = metrics
        self._version = version
        self._started_at_s = time.monotonic()
        self._survey = LogSurvey(log.database)
        self._turns = Turns()
        self._sampler = RateSampler(log.tails)
        self._watches = LegWatches(log, streams)
        self._overviews = SingleFlight[str, overview.Asked]("overview of the console")
        self._projects = SingleFlight[str, project_view.Asked]("project of the console")

    async def overview(self, caller: Caller) -> Overview:
        """Return the view of this process, with the projects that the caller may see."""
        log = self._log
        asked = await self._overviews.run(
            "", lambda: overview.ask_stores(log, self._survey, self._turns)
        )
        rows = overview.rows_of(
            caller, log.tails.all(), self._streams.all(), self._sampler.rates(), asked
        )
        parts = parts_of(log, draining=self._streams.draining)
        return Overview(
            process=ProcessView(
                id=log.process_id,
                version=self._version,
                pid=os.getpid(),
                uptime_seconds=round(time.monotonic() - self._started_at_s, 1),
                workers=self._metrics.processes(),
            ),
            health=HealthView(status_of(log, parts), parts),
            projects=overview.most_active(rows),
            totals=overview.totals_of(rows),
            work=asked.work if caller.projects is None else None,
            missing=asked.missing,
        )

    async def project(self, project_id: str) -> ProjectView:
        """Return one project's tiers, streams and work.

        Raises:
            ProjectNotFound: Postgres answered, and has no such project.
        """
        log = self._log
        asked = await self._projects.run(
            project_id, lambda: project_view.ask_stores(log, self._survey, self._turns, project_id)
        )
        if not asked.exists:
            raise ProjectNotFound(project_id)
        tail = log.tails.get(project_id)
        head = max(asked.log.head if asked.log else 0, tail.last_seq if tail else 0)
        streams = stream_rows.rows_of(
            self._streams.broadcast_of(project_id),
            self._streams.of_project(project_id),
            head=head,
            now=asyncio.get_running_loop().time(),
        )
        return ProjectView(
            project_id=project_id,
            process_id=log.process_id,
            name=asked.log.name if asked.log else None,
            owner_id=asked.log.owner_id if asked.log else None,
            memory=project_view.memory_tier(tail),
            redis=project_view.redis_tier(asked.window),
            postgres=project_view.postgres_tier(asked.log),
            waiting=stream_rows.waiting(streams),
            streams=stream_rows.most_behind(streams),
            streams_total=len(streams),
            builds=project_view.build_rows(asked.builds),
            answers=project_view.answer_rows(asked.answers),
            missing=asked.missing,
        )

    async def legs(self, project_id: str, after: int) -> Legs:
        """Return the project's events after number `after`, watched since the first question.

        Raises:
            ProjectNotFound: the log has no such project.
            ApiError: 429, too many projects are being watched in this process.
        """
        stores = Stores(self._log, self._turns)
        try:
            watch = await self._watches.watch(project_id)
        except LogUnavailable as error:
            return Legs(None, 0, [], [Missing("postgres", str(error))])
        ring = watch.ring
        first = ring.first_unpublished(after)
        if first is not None:
            # Inclusive: the script takes what comes after an id.
            below = EntryId(first.seq, first.k - 1) if first.k else EntryId(first.seq - 1, 2**53)
            window = await stores.redis(
                project_id,
                lambda: self._log.window.survey(
                    project_id, newest=project_view.WINDOW_ENTRIES, after=below
                ),
            )
            if window is not None:
                ring.published(dict(window.entries))
        events = ring.settled(after)
        return Legs(watch.id, events[-1].n if events else after, events, stores.missing)

    async def close(self) -> None:
        """End what runs only while somebody asks."""
        await self._sampler.close()
        await self._watches.close()
        await end([*self._overviews.tasks(), *self._projects.tasks()])
