"""Runs of bare.py from the orchestrator, with the CPU of the stores beside them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from bench.harness.child import Child
from bench.harness.cpu import CpuMeter
from bench.harness.messages import BarePlan, BareResult, Go, Started
from bench.harness.posting import samples_of
from bench.harness.servers import Stores
from bench.harness.stats import Latency, latency_of

_START_TIMEOUT_S = 60.0
_END_TIMEOUT_S = 60.0

Kind = Literal["single_row", "commit", "library", "xadd_xread"]


class BareRun(msgspec.Struct, frozen=True):
    """Operations a second, their latency, and CPU seconds: own, `redis`, `postgres`."""

    per_s: float
    done: int
    latency: Latency | None
    own_share: float
    cpu_s: dict[str, float]


async def run_bare(
    stores: Stores,
    folder: Path,
    kind: Kind,
    *,
    project: str,
    concurrency: int,
    seconds: float,
    rate: float = 0.0,
    text_bytes: int = 250,
    first_number: int = 1,
) -> BareRun:
    """Run one kind of load against the stores. Raises `ChildError`."""
    path = folder / f"{kind}.samples"
    plan = BarePlan(
        kind=kind, database_url=stores.database_url, redis_url=stores.redis.url, project=project,
        concurrency=concurrency, rate=rate, seconds=seconds, samples_path=str(path),
        text_bytes=text_bytes, first_number=first_number,
    )  # fmt: skip
    meter = CpuMeter({"redis": stores.redis.pid, "postgres": stores.postgres.pid})
    async with Child("bench.harness.bare") as child:
        await child.send(plan)
        await child.receive(Started, _START_TIMEOUT_S)
        meter.start()
        await child.send(Go())
        result = await child.receive(BareResult, seconds + _END_TIMEOUT_S)
        cpu_s = meter.stop()
    return BareRun(
        per_s=result.done / result.wall_s,
        done=result.done,
        latency=latency_of(samples_of(path)),
        own_share=result.cpu_s / result.wall_s,
        cpu_s=cpu_s,
    )
