"""How cost grows: CPU over connections and projects, latency over concurrency, memory.

Reuses the workloads W4 to W6 with other sizes.
"""

from __future__ import annotations

from contextlib import AsyncExitStack

import msgspec

from bench import w4_http_append, w5_projects, w6_idle
from bench.harness.cpu import wait_until_quiet
from bench.harness.drive import Round, run_round
from bench.harness.fanout import YARDSTICK, describe
from bench.harness.options import Options, command
from bench.harness.posting import Load, RoundFailed
from bench.harness.report import Figure, Plot, Report, Screen, new_report
from bench.harness.servers import Workspace
from bench.harness.stats import median
from bench.peers.base import System
from bench.peers.seqstream import Seqstream

WORKLOAD = "growth"

_CONNECTIONS = (1, 10, 100, 1000, 5000)
_PROJECTS = (10, 100, 1000, 5000)
_CONCURRENCY = (1, 4, 16, 64, 256)
_IDLE = (100, 1000, 4000, 10_000)
_MAX_RATE = 1000.0
_DELIVERIES_PER_S = 50_000.0


async def measure(options: Options, screen: Screen) -> Report:
    """Run all four curves."""
    report = new_report(WORKLOAD, "Growth", options)
    connections = await _over_connections(options, screen, report)
    few = msgspec.structs.replace(options, rounds=options.rounds, peers=False)
    parts = [
        await w5_projects.measure(_sized(few, _PROJECTS), screen),
        await w4_http_append.measure(_sized(few, _CONCURRENCY), screen),
        await w6_idle.measure(
            msgspec.structs.replace(_sized(few, _IDLE), rounds=1, peers=options.peers), screen
        ),
    ]
    series = _series(connections)
    return msgspec.structs.replace(
        report,
        rounds=connections,
        figures=_figures(connections) + [figure for part in parts for figure in part.figures],
        notes=report.notes + [note for part in parts for note in part.notes],
        plots=[
            Plot("CPU per delivery over connections", "s/million", x_label="connections",
                 series=series, log_y=True),
            *(plot for part in parts for plot in part.plots if plot.series),
        ],
        sound=all(part.sound for part in parts)
        and all(done.sound for done in connections if done.system == Seqstream.name),
    )  # fmt: skip


def _sized(options: Options, sizes: tuple[int, ...]) -> Options:
    return msgspec.structs.replace(options, sizes=sizes)


async def _over_connections(options: Options, screen: Screen, report: Report) -> list[Round]:
    """Fan-out to growing numbers of connections; 1,000 messages or 50,000 deliveries a second."""
    rounds = []
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(Workspace()).path
        systems: list[System] = [Seqstream(folder / "seqstream", env=options.service_env)]
        if options.peers and YARDSTICK.missing() is None:
            systems.append(YARDSTICK(folder / "yardstick"))
        for system in systems:
            stack.push_async_callback(system.stop)
            await system.start()
        for number in range(options.rounds):
            for connections in options.sizes or _CONNECTIONS:
                load = Load(
                    connections=connections,
                    rate=min(_MAX_RATE, _DELIVERIES_PER_S / connections),
                    seconds=options.seconds,
                    text_bytes=options.text_bytes,
                )
                for system in systems:
                    advance = screen.step(
                        f"{system.name}, {connections} connections, round {number + 1}"
                    )
                    try:
                        await wait_until_quiet(options.quiet_s)
                        done = await run_round(system, load, progress=advance)
                    except RoundFailed as error:
                        report.notes.append(str(error))
                        screen.say(str(error))
                        continue
                    rounds.append(done)
                    screen.say(f"{connections:>5} connections  {describe(done)}")
    return rounds


def _by_case(rounds: list[Round]) -> dict[tuple[str, int], list[Round]]:
    cases: dict[tuple[str, int], list[Round]] = {}
    for done in rounds:
        cases.setdefault((done.system, done.load.connections), []).append(done)
    return cases


def _series(rounds: list[Round]) -> dict[str, list[tuple[float, float]]]:
    series: dict[str, list[tuple[float, float]]] = {}
    for (system, connections), found in _by_case(rounds).items():
        value = median(done.cpu_per_million_total for done in found)
        if value is not None:
            series.setdefault(system, []).append((float(connections), value))
    return series


def _figures(rounds: list[Round]) -> list[Figure]:
    figures = []
    for (system, connections), found in _by_case(rounds).items():
        case = f"{system}, {connections} connections"
        latencies = [done.delivery for done in found]
        figures += [
            Figure(case, "messages", "per s", tuple(done.posts_per_s for done in found)),
            Figure(case, "CPU all", "s/million", tuple(d.cpu_per_million_total for d in found)),
            Figure(case, "p50", "ms", tuple(e.p50_ms if e else None for e in latencies)),
            Figure(case, "p99", "ms", tuple(e.p99_ms if e else None for e in latencies)),
        ]
    return figures


main = command(measure, help_text=__doc__, sizes_help="Connections [1, 10, 100, 1000, 5000].")

if __name__ == "__main__":
    main()
