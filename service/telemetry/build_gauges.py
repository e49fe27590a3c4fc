"""The metrics about builds, read from the database every few seconds."""

from __future__ import annotations

import asyncio

from service.telemetry.metrics import BUILD_STATUSES, Metrics
from streams.builds.lifecycle import Builds
from streams.model.errors import StreamsError

_EVERY_S = 5.0


async def measure(builds: Builds, metrics: Metrics) -> None:
    """Keep `builds` and `build_queue_age_seconds` up to date. Runs until cancelled."""
    while True:
        try:
            counts = await builds.counts()
        except StreamsError:
            # The last values are kept; the gauge `postgres_up` shows why.
            await asyncio.sleep(_EVERY_S)
            continue
        for status in BUILD_STATUSES:
            metrics.builds.labels(status).set(counts.by_status.get(status, 0))
        metrics.build_queue_age_seconds.set(counts.oldest_queued_s)
        await asyncio.sleep(_EVERY_S)
