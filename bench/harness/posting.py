"""Posts to a system with the poster process, alone or as part of a round (`drive.py`)."""

from __future__ import annotations

import itertools
import time
from array import array
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec

from bench.harness.child import Child, ChildError
from bench.harness.cpu import CpuMeter
from bench.harness.messages import Go, PosterPlan, PosterResult, Started
from bench.harness.stats import Latency, latency_of
from bench.peers.base import System

POSTER = "bench.harness.poster"

_START_TIMEOUT_S = 60.0
_ANSWER_TIMEOUT_S = 120.0
_numbers = itertools.count()


class Load(msgspec.Struct, frozen=True):
    """The load on a system in one round.

    `rate` in posts a second over all channels; `connections` per channel.
    """

    connections: int
    rate: float
    seconds: float
    channels: int = 1
    text_bytes: int = 250
    concurrency: int = 32
    readers: int = 1


class RoundFailed(Exception):
    """A round could not be finished."""


def new_channels(count: int) -> list[str]:
    """Return names that no round of this process has used."""
    stamp = time.monotonic_ns() // 1000
    return [f"b{stamp}-{next(_numbers)}" for _ in range(count)]


class Posted(msgspec.Struct, frozen=True, kw_only=True):
    """The result of posts without readers. CPU in seconds by role."""

    system: str
    posted: int
    errors: dict[str, int]
    posts_per_s: float
    cpu_s: dict[str, float]
    post: Latency | None
    poster_share: float
    channel: str


async def run_posts(
    system: System,
    *,
    concurrency: int,
    seconds: float,
    text_bytes: int,
    during: Callable[[], None] | None = None,
) -> Posted:
    """Post to one channel as fast as `concurrency` connections can. Raises `RoundFailed`.

    `during` is called once when posting begins.
    """
    [channel] = new_channels(1)
    await system.prepare([channel])
    load = Load(
        connections=0, rate=0, seconds=seconds, text_bytes=text_bytes, concurrency=concurrency
    )
    try:
        async with Child(POSTER) as poster:
            await poster.send(poster_plan(system, load, [channel]))
            await poster.receive(Started, _START_TIMEOUT_S)
            meter = CpuMeter(system.pids)
            meter.start()
            if during is not None:
                during()
            await poster.send(Go())
            posted = await poster.receive(PosterResult, seconds + _ANSWER_TIMEOUT_S)
            cpu_s = meter.stop()
    except ChildError as error:
        raise RoundFailed(f"{system.name}: {error}") from error
    return Posted(
        system=system.name,
        posted=posted.posted,
        errors=posted.errors,
        posts_per_s=posted.posted / posted.wall_s if posted.wall_s else 0.0,
        cpu_s=cpu_s,
        post=latency_of(samples_of(samples_path(system, "post"))),
        poster_share=posted.cpu_s / posted.wall_s if posted.wall_s else 0.0,
        channel=channel,
    )


async def post_some(system: System, channel: str, count: int, text_bytes: int = 250) -> None:
    """Post `count` messages to a channel that is prepared, and wait for their answers.

    Raises `RoundFailed` when one is refused.
    """
    load = Load(connections=0, rate=0, seconds=60, text_bytes=text_bytes, concurrency=4)
    plan = msgspec.structs.replace(poster_plan(system, load, [channel]), count=count)
    async with Child(POSTER) as poster:
        await poster.send(plan)
        await poster.receive(Started, _START_TIMEOUT_S)
        await poster.send(Go())
        posted = await poster.receive(PosterResult, _ANSWER_TIMEOUT_S)
    if posted.posted != count:
        raise RoundFailed(f"{system.name}: posting failed: {posted.errors}")


def poster_plan(system: System, load: Load, channels: Sequence[str]) -> PosterPlan:
    """Return the poster's plan for a load; channels take turns."""
    return PosterPlan(
        host="127.0.0.1",
        port=system.port,
        template=system.post_template(),
        channels=tuple(channels),
        text_bytes=load.text_bytes,
        rate=load.rate,
        count=int(load.rate * load.seconds),
        duration_s=load.seconds,
        concurrency=load.concurrency,
        samples_path=str(samples_path(system, "post")),
    )


def samples_path(system: System, name: str) -> Path:
    """Return the path at which a load generator writes its samples."""
    return system.folder / f"{name}.samples"


def samples_of(path: Path) -> array[int]:
    """Read the samples (microseconds) that a load generator wrote, and remove them."""
    samples = array("q")
    samples.frombytes(path.read_bytes())
    path.unlink()
    return samples
