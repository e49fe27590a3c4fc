"""The messages between the orchestrator and its load generators: one JSON object a line.

Data only. Samples are not sent as messages: they are written to a file that the plan names.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from bench.harness.http11 import PostTemplate


class StreamGroup(msgspec.Struct, frozen=True):
    """Connections of one channel: how many, and the request's path and headers."""

    channel: str
    connections: int
    path: str
    headers: tuple[tuple[str, str], ...] = ()


class ReaderPlan(msgspec.Struct, frozen=True, tag="reader_plan"):
    """What a reader process opens, and how strictly it reads.

    `strict`: require SSE ids that grow by one. `connect_concurrency`: connections opened at a
    time. `source_addresses`: local addresses that take turns, when one has too few ports.
    """

    host: str
    port: int
    groups: tuple[StreamGroup, ...]
    strict: bool
    samples_path: str
    connect_concurrency: int = 100
    connect_timeout_s: float = 60.0
    source_addresses: tuple[str, ...] = ()
    keep_latencies: bool = True


class PosterPlan(msgspec.Struct, frozen=True, tag="poster_plan"):
    """The requests that a poster process sends.

    `rate`: posts a second in all, open loop; 0 sends as fast as `concurrency` allows. Ends after
    `count` posts, or, when that is 0, after `duration_s`. Channels take turns.
    """

    host: str
    port: int
    template: PostTemplate
    channels: tuple[str, ...]
    text_bytes: int
    rate: float
    count: int
    duration_s: float
    concurrency: int
    samples_path: str
    first_number: int = 1
    request_timeout_s: float = 30.0


class BarePlan(msgspec.Struct, frozen=True, tag="bare_plan"):
    """Load on the stores without the service: see bare.py for the kinds.

    `rate`: operations a second of each of `concurrency` workers; 0 is as fast as they go.
    """

    kind: Literal["single_row", "commit", "library", "xadd_xread"]
    database_url: str
    redis_url: str
    project: str
    concurrency: int
    rate: float
    seconds: float
    samples_path: str
    text_bytes: int = 250
    first_number: int = 1


class Started(msgspec.Struct, frozen=True, tag="started"):
    """The process has its plan and waits for `Go`."""


class Go(msgspec.Struct, frozen=True, tag="go"):
    """Begin."""


class Live(msgspec.Struct, frozen=True, tag="live"):
    """Every connection of the reader is open and live (strict: has seen `stream.live`)."""

    connections: int
    seconds: float


class Progress(msgspec.Struct, frozen=True, tag="progress"):
    """The number of messages read or posted so far."""

    count: int


class Expected(msgspec.Struct, frozen=True):
    """The count of messages posted to a channel, and the sum of their numbers."""

    count: int
    number_sum: int


class Finish(msgspec.Struct, frozen=True, tag="finish"):
    """Wait until every connection has what is expected of its channel, then report.

    A connection that has less after `timeout_s` is a loss.
    """

    expected: dict[str, Expected]
    timeout_s: float


class Complete(msgspec.Struct, frozen=True, tag="complete"):
    """Every connection has the expected messages, or time is up; the result follows `Stop`."""

    seconds_since_go: float


class Stop(msgspec.Struct, frozen=True, tag="stop"):
    """Close the connections, write the samples, report and end."""


class ReaderResult(msgspec.Struct, frozen=True, tag="reader_result"):
    """A reader process's result. `lost`: messages missing over all connections."""

    deliveries: int
    lost: int
    violation_count: int
    violations: tuple[str, ...]
    received_bytes: int
    reads: int
    cpu_s: float
    wall_s: float


class PosterResult(msgspec.Struct, frozen=True, tag="poster_result"):
    """A poster process's result. `wall_s`: from the first post's begin to the last response.

    `errors` counts responses by status, and under `connection` those that were never received.
    `longest_queue`: the most posts that were due and waited for a free connection.
    """

    posted: int
    errors: dict[str, int]
    expected: dict[str, Expected]
    wall_s: float
    longest_queue: int
    cpu_s: float


class BareResult(msgspec.Struct, frozen=True, tag="bare_result"):
    """The result of load without the service: operations, and the process's CPU seconds."""

    done: int
    wall_s: float
    cpu_s: float


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The process failed and ends."""

    error: str


ToChild = ReaderPlan | PosterPlan | BarePlan | Go | Finish | Stop
FromChild = Started | Live | Progress | Complete | ReaderResult | PosterResult | BareResult | Failed
