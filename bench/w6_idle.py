"""W6: resident memory and CPU of idle connections in one service process."""

from __future__ import annotations

import asyncio
import time
from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from bench.harness.child import ChildError
from bench.harness.cpu import CpuMeter, memory
from bench.harness.drive import close_readers, finish_readers, open_readers
from bench.harness.options import Options, command
from bench.harness.posting import Load, RoundFailed, new_channels
from bench.harness.report import Figure, Plot, Report, Screen, new_report
from bench.harness.servers import Workspace
from bench.harness.stats import median
from bench.harness.targets import Target, judge
from bench.peers.base import System
from bench.peers.nchan import NchanMemory
from bench.peers.seqstream import Seqstream

WORKLOAD = "w6_idle"
TARGET = Target("W6", "resident per idle connection, one process", at_most=13, unit=" KiB")

_CHANNELS = 10
_WARM_UP_CONNECTIONS = 200
_SETTLE_S = 2.0
_READER_CONNECTIONS = 10_000
_ADDRESS_CONNECTIONS = 20_000


class Idle(msgspec.Struct, frozen=True):
    """The cost of a number of idle connections."""

    connections: int
    rss_kib_each: float
    pss_kib_each: float
    base_rss_kib: int
    open_s: float
    cpu_share: float


async def measure(options: Options, screen: Screen) -> Report:
    """Run the workload. Sizes: numbers of connections; the largest one is judged."""
    sizes = sorted(options.sizes or (10_000,))
    report = new_report(WORKLOAD, "W6: idle connections in one process", options)
    # Memory varies little between rounds; a third of them is enough.
    rounds = max(options.rounds // 3, 1)
    found: dict[tuple[str, int], list[Idle]] = {}
    with Workspace() as workspace:
        for number in range(rounds):
            for size in sizes:
                for system in _systems(workspace.path, options, report, number):
                    screen.step(f"{system.name}, {size} connections, round {number + 1}")
                    try:
                        idle = await _measure_one(system, size, options.seconds)
                    except (ChildError, RoundFailed) as error:
                        report.notes.append(f"{system.name}, {size} connections: {error}")
                        screen.say(report.notes[-1])
                        continue
                    found.setdefault((system.name, size), []).append(idle)
                    screen.say(_line(system.name, idle))
    judged = found.get((Seqstream.name, sizes[-1]), [])
    return msgspec.structs.replace(
        report,
        figures=[f for (name, size), runs in found.items() for f in _figures(name, size, runs)],
        outcomes=[judge(TARGET, median(idle.rss_kib_each for idle in judged))],
        plots=[memory_plot(found)],
        sound=all((Seqstream.name, size) in found for size in sizes),
    )


def memory_plot(found: dict[tuple[str, int], list[Idle]]) -> Plot:
    """Memory in all over the number of connections, by system."""
    series: dict[str, list[tuple[float, float]]] = {}
    for (name, size), runs in found.items():
        values = [(idle.base_rss_kib + idle.rss_kib_each * size) / 1024 for idle in runs]
        middle = median(values)
        if middle is not None:
            series.setdefault(name, []).append((float(size), middle))
    return Plot("Memory over idle connections", "MiB", x_label="connections", series=series)


def _systems(folder: Path, options: Options, report: Report, number: int) -> list[System]:
    ours: list[System] = [
        Seqstream(folder / f"seqstream-{time.monotonic_ns()}", env=options.service_env)
    ]
    if number or not options.peers:
        return ours
    why = NchanMemory.missing()
    if why is not None:
        note = f"{NchanMemory.name} skipped: {why}"
        if note not in report.notes:
            report.notes.append(note)
        return ours
    return [*ours, NchanMemory(folder / f"nchan-{time.monotonic_ns()}")]


async def _measure_one(system: System, connections: int, seconds: float) -> Idle:
    await system.start()
    try:
        channels = new_channels(_CHANNELS)
        await system.prepare(channels)
        # The first connections also allocate what all connections share.
        await _hold(system, channels, _WARM_UP_CONNECTIONS, 0.0)
        return await _hold(system, channels, connections, seconds)
    finally:
        await system.stop()


async def _hold(system: System, channels: list[str], connections: int, seconds: float) -> Idle:
    """Open the connections, wait, measure the process, and close them."""
    pids = {"service": system.pids["service"]}
    before = memory(pids["service"])
    readers_count = -(-connections // _READER_CONNECTIONS)
    # One source address has some 28,000 ports for one destination.
    addresses = tuple(f"127.0.0.{n + 1}" for n in range(-(-connections // _ADDRESS_CONNECTIONS)))
    groups = [
        system.stream(channel, connections // len(channels) + (n < connections % len(channels)))
        for n, channel in enumerate(channels)
    ]
    load = Load(connections=connections, rate=0, seconds=seconds, readers=readers_count)
    async with AsyncExitStack() as stack:
        readers, open_s = await open_readers(
            stack, system, groups, load, source_addresses=addresses if len(addresses) > 1 else ()
        )
        await asyncio.sleep(_SETTLE_S)
        meter = CpuMeter(pids)
        meter.start()
        await asyncio.sleep(seconds)
        cpu_s = meter.stop()["service"]
        after = memory(pids["service"])
        await finish_readers(readers, {})
        results = await close_readers(readers)
    broken = sum(result.violation_count for result in results)
    if broken:
        raise RoundFailed(f"{broken} of {connections} connections: {results[0].violations[:2]}")
    return Idle(
        connections=connections,
        rss_kib_each=(after.rss_kib - before.rss_kib) / connections,
        pss_kib_each=(after.pss_kib - before.pss_kib) / connections,
        base_rss_kib=before.rss_kib,
        open_s=open_s,
        cpu_share=cpu_s / seconds if seconds else 0.0,
    )


def _line(name: str, idle: Idle) -> str:
    return (
        f"{name:<18} {idle.connections:>6} connections  {idle.rss_kib_each:5.1f} KiB each "
        f"over {idle.base_rss_kib / 1024:.0f} MiB  opened in {idle.open_s:.1f} s  "
        f"idle CPU {idle.cpu_share:.1%}"
    )


def _figures(name: str, size: int, runs: list[Idle]) -> list[Figure]:
    case = f"{name}, {size} connections"
    return [
        Figure(case, "resident", "KiB each", tuple(idle.rss_kib_each for idle in runs)),
        Figure(case, "PSS", "KiB each", tuple(idle.pss_kib_each for idle in runs)),
        Figure(case, "process before", "MiB", tuple(i.base_rss_kib / 1024 for i in runs)),
        Figure(case, "opened in", "s", tuple(idle.open_s for idle in runs)),
        Figure(case, "idle CPU", "of a core", tuple(idle.cpu_share for idle in runs)),
    ]


main = command(measure, help_text=__doc__, sizes_help="Connections [10000].")

if __name__ == "__main__":
    main()
