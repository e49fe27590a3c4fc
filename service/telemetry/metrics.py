"""The metrics of docs/protocol.md §9, as one object that is passed around.

The names are a contract with operators: they carry no prefix, and no label holds the id of a
project or a user, only words of the closed sets below. Nothing is measured here: the code that
does something counts it.

With several service processes, `PROMETHEUS_MULTIPROC_DIR` must name an empty folder before
prometheus_client is first imported; `render` then returns the sums over the processes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector

BUCKETS_MS: Final = (
    0.25, 0.5, 1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10_000,
)  # fmt: skip
BATCH_BUCKETS: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500)

EVENTS: Final = (
    "message.new",
    "message.replay",
    "message.delta",
    "answer.state",
    "build.status",
    "typing.start",
    "typing.stop",
    "presence.changed",
    "replay.end",
    "stream.open",
    "stream.live",
    "stream.reset",
    "stream.closing",
    "stream.refused",
    "heartbeat",
)
CLOSE_REASONS: Final = (
    "client",
    "shutdown",
    "token_expired",
    "access_revoked",
    "slow_client",
    "max_age",
    "error",
)
REPLAY_SOURCES: Final = ("none", "memory", "redis", "postgres")
AUTHENTICATION_FAILURES: Final = (
    "missing",
    "ambiguous",
    "bad_signature",
    "clock_skew",
    "bad_user_id",
    "bad_scope",
    "bad_token",
    "expired_token",
    "early_token",
)
BUILD_STATUSES: Final = ("queued", "in_progress", "completed", "failed")

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """All metrics of a process, registered in one registry."""

    def __init__(self, registry: CollectorRegistry, *, multiprocess_dir: str | None = None) -> None:
        """Register in `registry`; `multiprocess_dir` is PROMETHEUS_MULTIPROC_DIR when it is set."""
        # Otherwise every counter adds a `_created` series.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self._registry = registry
        self._multiprocess_dir = multiprocess_dir
        self._register_writing(registry)
        self._register_streams(registry)
        self._register_reading(registry)
        self._register_stores(registry)
        self._register_builds(registry)
        self._register_refusals()
        self._delivered_children: dict[bytes, Any] = {
            event.encode(): self.sse_deliveries.labels(event) for event in EVENTS
        }

    def _register_writing(self, registry: CollectorRegistry) -> None:
        self.db_to_publish_ms = Histogram(
            "db_to_publish_ms",
            "From a commit until its messages stand in the Redis Stream",
            buckets=BUCKETS_MS,
            registry=registry,
        )
        self.messages_appended = self._counter("messages_appended_total", "Messages committed")
        self.append_batch_size = Histogram(
            "append_batch_size",
            "Messages in one commit",
            buckets=BATCH_BUCKETS,
            registry=registry,
        )

    def _register_streams(self, registry: CollectorRegistry) -> None:
        # One observation per write, not per connection: one costs about as much as a frame.
        self.publish_to_sse_write_ms = Histogram(
            "publish_to_sse_write_ms",
            "From an entry's arrival in this process until it is written to sockets",
            buckets=BUCKETS_MS,
            registry=registry,
        )
        self.sse_connections = Gauge(
            "sse_connections", "Open streams", multiprocess_mode="livesum", registry=registry
        )
        self.long_polls = Gauge(
            "long_polls",
            "Requests for the history that wait for a message",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self.sse_deliveries = self._counter(
            "sse_deliveries_total", "Events written to streams", "event", EVENTS
        )
        self.sse_bytes = self._counter("sse_bytes_total", "Bytes written to streams")
        self.sse_backpressure = self._counter(
            "sse_backpressure_total", "Times that a stream's client took no more bytes"
        )
        self.sse_closed = self._counter(
            "sse_closed_total", "Streams that ended", "reason", CLOSE_REASONS
        )

    def _register_reading(self, registry: CollectorRegistry) -> None:
        self.replays = self._counter("replays_total", "Resumes served", "source", REPLAY_SOURCES)
        self.replayed_messages = self._counter(
            "replayed_messages_total", "Messages replayed", "source", REPLAY_SOURCES
        )
        self.stream_gaps_found = self._counter(
            "stream_gaps_found_total", "Times that an arriving entry did not meet the last one"
        )
        self.stream_gaps_healed = self._counter(
            "stream_gaps_healed_total", "Gaps that were filled from the window or the log"
        )
        self.stream_entries_skipped = self._counter(
            "stream_entries_skipped_total",
            "Entries of streams in Redis that no writer of this service makes",
        )
        self.tail_lag_seqs = Gauge(
            "tail_lag_seqs",
            "How many seqs the tail that is most behind has to fetch",
            multiprocess_mode="livemax",
            registry=registry,
        )

    def _register_stores(self, registry: CollectorRegistry) -> None:
        # The minimum over the processes: 0 as soon as one of them cannot reach the store.
        self.redis_up = Gauge(
            "redis_up", "1 while Redis answers", multiprocess_mode="livemin", registry=registry
        )
        self.postgres_up = Gauge(
            "postgres_up",
            "1 while Postgres answers",
            multiprocess_mode="livemin",
            registry=registry,
        )

    def _register_builds(self, registry: CollectorRegistry) -> None:
        # Every process reads the same from the database, so the newest value is taken.
        self.builds = Gauge(
            "builds",
            "Builds by status",
            ["status"],
            multiprocess_mode="livemostrecent",
            registry=registry,
        )
        for status in BUILD_STATUSES:
            self.builds.labels(status)
        self.build_queue_age_seconds = Gauge(
            "build_queue_age_seconds",
            "Age of the oldest queued build",
            multiprocess_mode="livemostrecent",
            registry=registry,
        )

    def _register_refusals(self) -> None:
        self.rate_limited = self._counter("rate_limited_total", "Requests refused by a limit")
        self.http_malformed = self._counter(
            "http_malformed_total", "Requests refused before they reached a route"
        )
        self.auth_failures = self._counter(
            "auth_failures_total", "Callers that were not known", "reason", AUTHENTICATION_FAILURES
        )

    def delivered(self, counts: Mapping[bytes, int], size_bytes: int, connections: int) -> None:
        """Count a write of `size_bytes`, with `counts` of each event, to each of `connections`."""
        for event, count in counts.items():
            if (child := self._delivered_children.get(event)) is not None:
                child.inc(count * connections)
        self.sse_bytes.inc(size_bytes * connections)

    def render(self) -> tuple[bytes, str]:
        """Return the body of `/metrics` and its content type."""
        if self._multiprocess_dir is None:
            return generate_latest(self._registry), CONTENT_TYPE
        every_process = CollectorRegistry()
        MultiProcessCollector(every_process, self._multiprocess_dir)  # type: ignore[no-untyped-call]
        return generate_latest(every_process), CONTENT_TYPE

    def processes(self) -> int:
        """Return how many processes share these metrics: those behind one port."""
        if self._multiprocess_dir is None:
            return 1
        # The supervisor removes the gauges of processes that ended.
        return max(1, len(list(Path(self._multiprocess_dir).glob("gauge_livesum_*.db"))))

    def _counter(
        self, name: str, documentation: str, label: str | None = None, words: Sequence[str] = ()
    ) -> Counter:
        counter = Counter(name, documentation, [label] if label else [], registry=self._registry)
        # Every series exists from the start at 0: Prometheus' `rate` misses a first increment
        # that comes with a new series.
        for word in words:
            counter.labels(word)
        return counter
