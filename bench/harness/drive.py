"""One measured round: opens streams, posts messages, and accounts for every delivery.

The same for every system; a system's own processes are in `bench/peers`. Readers and posters are
separate processes (`child.py`). CPU is measured from the first post to the last delivery.
"""

from __future__ import annotations

import asyncio
import time
from array import array
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack

import msgspec

from bench.harness import counters
from bench.harness.child import Child, ChildError
from bench.harness.cpu import CpuMeter, machine_busy_seconds
from bench.harness.messages import (
    Complete,
    Expected,
    Finish,
    Go,
    Live,
    PosterResult,
    ReaderPlan,
    ReaderResult,
    Started,
    Stop,
    StreamGroup,
)
from bench.harness.posting import (
    POSTER,
    Load,
    RoundFailed,
    new_channels,
    poster_plan,
    samples_of,
    samples_path,
)
from bench.harness.stats import Latency, latency_of, per_million
from bench.peers.base import System

READER = "bench.harness.sse_reader"

_START_TIMEOUT_S = 60.0
_OPEN_TIMEOUT_S = 120.0
_CATCH_UP_TIMEOUT_S = 30.0
_SETTLE_S = 0.5


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one round. CPU in seconds by role; shares are of one core.

    `others_share` is what the rest of the machine used: above a few tenths, other programs were
    running and the round is less reliable. `lost` counts missing deliveries; `violations` are
    texts about other violations.
    """

    system: str
    load: Load
    posted: int
    deliveries: int
    lost: int
    violation_count: int
    violations: tuple[str, ...]
    post_errors: dict[str, int]
    posts_per_s: float
    seconds: float
    cpu_s: dict[str, float]
    cpu_per_million: dict[str, float | None]
    cpu_per_million_total: float | None
    delivery: Latency | None
    post: Latency | None
    reader_share: float
    poster_share: float
    others_share: float
    longest_queue: int
    reads_per_delivery: float | None
    bytes_per_delivery: float | None
    counts: dict[str, int]

    @property
    def sound(self) -> bool:
        """Whether everything that was posted arrived as it should."""
        return not (self.lost or self.violation_count or self.post_errors)


async def run_round(
    system: System,
    load: Load,
    *,
    progress: Callable[[int, int], None] | None = None,
    during: Callable[[], None] | None = None,
) -> Round:
    """Measure one round.

    `progress` is called with the deliveries so far and in total, `during` once when posting begins.
    Raises `RoundFailed` when a load generator fails.
    """
    channels = new_channels(load.channels)
    await system.prepare(channels)
    groups = [system.stream(channel, load.connections) for channel in channels]
    total = int(load.rate * load.seconds) * load.connections
    try:
        async with AsyncExitStack() as stack:
            readers, _ = await open_readers(stack, system, groups, load)
            poster = await stack.enter_async_context(Child(POSTER))
            await poster.send(poster_plan(system, load, channels))
            await poster.receive(Started, _START_TIMEOUT_S)
            # A peer may send its headers before it has subscribed at its store; wait for that.
            await asyncio.sleep(_SETTLE_S)
            before = await system.counters()
            meter = CpuMeter(system.pids)
            meter.start()
            busy_before = machine_busy_seconds()
            begun = time.monotonic()
            if during is not None:
                during()
            await poster.send(Go())
            watcher = asyncio.create_task(_watch(readers, total, progress))
            try:
                posted = await poster.receive(PosterResult, load.seconds + _OPEN_TIMEOUT_S)
                await finish_readers(readers, posted.expected)
            finally:
                watcher.cancel()
            seconds = time.monotonic() - begun
            cpu_s = meter.stop()
            busy_s = machine_busy_seconds() - busy_before
            counts = counters.difference(before, await system.counters())
            results = await close_readers(readers)
    except ChildError as error:
        raise RoundFailed(f"{system.name}: {error}") from error
    return _round(system, load, posted, results, seconds, cpu_s, busy_s, counts)


async def open_readers(
    stack: AsyncExitStack,
    system: System,
    groups: Sequence[StreamGroup],
    load: Load,
    *,
    connect_concurrency: int = 100,
    source_addresses: tuple[str, ...] = (),
) -> tuple[list[Child], float]:
    """Start the reader processes and open every stream, `connect_concurrency` at a time.

    Returns the readers, with every stream live, and the seconds that this took.
    """
    readers = [await stack.enter_async_context(Child(READER)) for _ in range(load.readers)]
    for index, reader in enumerate(readers):
        mine = tuple(_share(group, index, load.readers) for group in groups)
        await reader.send(
            ReaderPlan(
                host="127.0.0.1",
                port=system.port,
                groups=tuple(group for group in mine if group.connections),
                strict=system.strict,
                samples_path=str(samples_path(system, f"read-{index}")),
                connect_concurrency=connect_concurrency,
                source_addresses=source_addresses,
            )
        )
        await reader.receive(Started, _START_TIMEOUT_S)
    await asyncio.gather(*(reader.send(Go()) for reader in readers))
    live = await asyncio.gather(*(reader.receive(Live, _OPEN_TIMEOUT_S) for reader in readers))
    return readers, max(entry.seconds for entry in live)


async def close_readers(readers: Sequence[Child]) -> list[ReaderResult]:
    """Stop the readers and return their results."""
    await asyncio.gather(*(reader.send(Stop()) for reader in readers))
    return [await reader.receive(ReaderResult, _START_TIMEOUT_S) for reader in readers]


async def finish_readers(readers: Sequence[Child], expected: dict[str, Expected]) -> None:
    """Send readers the expected counts and wait until they have them."""
    finish = Finish(expected, _CATCH_UP_TIMEOUT_S)
    await asyncio.gather(*(reader.send(finish) for reader in readers))
    await asyncio.gather(
        *(reader.receive(Complete, _CATCH_UP_TIMEOUT_S + 10) for reader in readers)
    )


def _share(group: StreamGroup, index: int, readers: int) -> StreamGroup:
    extra = 1 if index < group.connections % readers else 0
    return msgspec.structs.replace(group, connections=group.connections // readers + extra)


async def _watch(
    readers: Sequence[Child], total: int, progress: Callable[[int, int], None] | None
) -> None:
    while progress is not None:
        await asyncio.sleep(0.25)
        progress(sum(reader.progress for reader in readers), total)


def _round(
    system: System,
    load: Load,
    posted: PosterResult,
    results: Sequence[ReaderResult],
    seconds: float,
    cpu_s: dict[str, float],
    busy_s: float,
    counts: dict[str, int],
) -> Round:
    deliveries = sum(result.deliveries for result in results)
    latencies = array("q")
    for index in range(load.readers):
        latencies.extend(samples_of(samples_path(system, f"read-{index}")))
    return Round(
        system=system.name,
        load=load,
        posted=posted.posted,
        deliveries=deliveries,
        lost=sum(result.lost for result in results),
        violation_count=sum(result.violation_count for result in results),
        violations=tuple(text for result in results for text in result.violations),
        post_errors=posted.errors,
        posts_per_s=posted.posted / posted.wall_s if posted.wall_s else 0.0,
        seconds=seconds,
        cpu_s=cpu_s,
        cpu_per_million={role: per_million(used, deliveries) for role, used in cpu_s.items()},
        cpu_per_million_total=per_million(sum(cpu_s.values()), deliveries),
        delivery=latency_of(latencies),
        post=latency_of(samples_of(samples_path(system, "post"))),
        reader_share=max(result.cpu_s / result.wall_s for result in results),
        poster_share=posted.cpu_s / posted.wall_s if posted.wall_s else 0.0,
        others_share=max(
            busy_s - sum(cpu_s.values()) - posted.cpu_s - sum(result.cpu_s for result in results),
            0.0,
        )
        / seconds,
        longest_queue=posted.longest_queue,
        reads_per_delivery=(
            sum(result.reads for result in results) / deliveries if deliveries else None
        ),
        bytes_per_delivery=(
            sum(result.received_bytes for result in results) / deliveries if deliveries else None
        ),
        counts=counts,
    )
