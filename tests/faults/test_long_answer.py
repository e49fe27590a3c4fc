"""A long answer under faults: everybody ends with the same text, and shown is kept (§5, §6).

`make faults` has 64 KiB at 100 pieces a second, 50 clients and three service processes, and
measures stops and what a killed process loses (SEQSTREAM_LONG_ANSWERS=1); here all is shorter.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import click
import pytest

from tests.faults.long_answer import Length, LongAnswer
from tests.faults.world import Plan, World

_IS_LONG = bool(os.environ.get("SEQSTREAM_LONG_ANSWERS"))
_LENGTH = (
    Length(services=3, clients=50, pieces=4096)
    if _IS_LONG
    else Length(services=2, clients=6, pieces=120)
)
_STOPS = 24
_SEED = 20_240_229
_REPORT = Path(".seqstream") / "long-answers.json"
_LEASE_S = 2


@pytest.fixture(scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    """Service processes with a Redis and a Postgres that the tests may stop."""
    plan = Plan(
        services=_LENGTH.services,
        worker=False,
        own_postgres=True,
        settings={"SEQSTREAM_ANSWER_LEASE_SECONDS": str(_LEASE_S)},
    )
    async with World(plan, tmp_path_factory.mktemp("long"), None, seed=_SEED) as running:
        yield running


Fault = Callable[[LongAnswer], Awaitable[None]]


async def _nothing(_: LongAnswer) -> None:
    return


async def _stop(answer: LongAnswer) -> None:
    await answer.stop()


async def _redis_killed(answer: LongAnswer) -> None:
    await asyncio.to_thread(answer.world.redis.kill)
    await answer.wait_written(0.7)
    await asyncio.to_thread(answer.world.redis.start)


async def _postgres_restarted(answer: LongAnswer) -> None:
    await asyncio.to_thread(answer.world.postgres.stop)
    await asyncio.to_thread(answer.world.postgres.start)


async def _process_killed(answer: LongAnswer) -> None:
    await answer.world.services[0].kill()


_CASES = {
    "no fault": (_nothing, "answer"),
    "stopped in the middle": (_stop, "answer_stopped"),
    "redis killed": (_redis_killed, "answer"),
    "postgres restarted": (_postgres_restarted, "answer"),
    # The last: the process is started again only if another test needs it.
    "writing process killed": (_process_killed, "answer_failed"),
}


@pytest.mark.timeout(300, method="signal")  # a thread would end pytest and leave servers
@pytest.mark.parametrize("case", _CASES)
async def test_everybody_ends_with_the_text_that_was_kept(
    world: World, case: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Readers that stay, come, go and join late show beginnings of the message, then all of it."""
    fault, ending = _CASES[case]
    async with _asked(world, _LENGTH) as answer:
        await answer.wait_written(0.5)
        fault_s = time.monotonic()
        await fault(answer)
        violations = await answer.finish()
        assert not violations, "\n".join(map(str, violations[:10]))
        end = answer.end
        assert end.answer_end is not None
        assert end.answer_end.type == ending
        assert answer.texts() == {end.text}
        figures: dict[str, float] = {
            "clients": len(answer.readers),
            "kept_bytes": len(end.text.encode()),
        }
        if case == "writing process killed":
            sent = answer.sending.sent_until(fault_s)
            kept_until_s = answer.sending.sent_at_s(len(end.text))
            lost_text = answer.asked.intended[len(end.text) : sent]
            figures["lost_bytes"] = len(lost_text.encode())
            figures["lost_s"] = fault_s - kept_until_s
        _report(case, figures, capsys)


@pytest.mark.skipif(not _IS_LONG, reason="measured by make faults")
@pytest.mark.timeout(300, method="signal")
@pytest.mark.parametrize("redis", ["up", "away"])
async def test_stops_are_measured(
    world: World, redis: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the request, at any process, to the message at each reader; nothing shown is lost."""
    if redis == "away":
        await asyncio.to_thread(world.redis.kill)
    try:
        latencies_s, last_s = await _stop_many(world)
    finally:
        if redis == "away":
            await asyncio.to_thread(world.redis.start)
    figures: dict[str, float] = {"stops": _STOPS, "arrivals": len(latencies_s)}
    for name, values in (("each_reader", latencies_s), ("last_reader", last_s)):
        hundredths = statistics.quantiles(values, n=100, method="inclusive")
        figures |= {f"{name}_p50_s": hundredths[49], f"{name}_p99_s": hundredths[98]}
    _report(f"stops, redis {redis}", figures, capsys)


async def _stop_many(world: World) -> tuple[list[float], list[float]]:
    length = Length(services=_LENGTH.services, clients=9, pieces=2000)
    latencies_s: list[float] = []
    last_s: list[float] = []
    for number in range(_STOPS):
        async with _asked(world, length, seed=number, late=False) as answer:
            await answer.wait_written(0.02)
            requested_s = await answer.stop(number % len(world.services))
            violations = await answer.finish()
            assert not violations, "\n".join(map(str, violations[:10]))
            arrivals = [at_s - requested_s for at_s in answer.arrivals_s()]
        latencies_s += arrivals
        last_s.append(max(arrivals))
    return latencies_s, last_s


@asynccontextmanager
async def _asked(
    world: World, length: Length, *, seed: int = _SEED, late: bool = True
) -> AsyncIterator[LongAnswer]:
    for service in world.services:
        if not service.is_running():
            await service.start()
    async with LongAnswer(world, length, seed=seed, late=late) as answer:
        yield answer


def _report(case: str, figures: dict[str, float], capsys: pytest.CaptureFixture[str]) -> None:
    """Print what was measured, and keep it with the other results of `make faults`."""
    if not _IS_LONG:
        return
    rounded = {name: round(value, 3) for name, value in figures.items()}
    with capsys.disabled():
        click.echo(f"\n{case}: " + ", ".join(f"{name} {value}" for name, value in rounded.items()))
    _REPORT.parent.mkdir(exist_ok=True)
    known = json.loads(_REPORT.read_text()) if _REPORT.exists() else {}
    _REPORT.write_text(json.dumps(known | {case: rounded}, indent=2) + "\n")
