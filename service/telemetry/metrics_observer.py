"""Counts what the library reports to its observer, as metrics."""

from __future__ import annotations

from service.telemetry.metrics import Metrics
from streams.runtime.observer import Observer


class MetricsObserver(Observer):
    """Counts what happens in the event log."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        metrics.redis_up.set(1)
        metrics.postgres_up.set(1)

    def committed(self, messages: int) -> None:
        self._metrics.messages_appended.inc(messages)
        self._metrics.append_batch_size.observe(messages)

    def published(self, messages: int, elapsed_ms: float) -> None:
        self._metrics.db_to_publish_ms.observe(elapsed_ms)

    def gap_found(self) -> None:
        self._metrics.stream_gaps_found.inc()

    def gap_healed(self) -> None:
        self._metrics.stream_gaps_healed.inc()

    def entries_skipped(self, entries: int) -> None:
        self._metrics.stream_entries_skipped.inc(entries)

    def lagging(self, seqs: int) -> None:
        self._metrics.tail_lag_seqs.set(seqs)

    def redis(self, up: bool) -> None:
        self._metrics.redis_up.set(int(up))

    def postgres(self, up: bool) -> None:
        self._metrics.postgres_up.set(int(up))
