"""W8: latency at 50 posts a second to 10 connections, compared with the stores alone."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from bench.harness.bare_runs import BareRun, run_bare
from bench.harness.cpu import wait_until_quiet
from bench.harness.drive import Round, run_round
from bench.harness.options import Options, command
from bench.harness.posting import Load, new_channels
from bench.harness.report import Figure, Plot, Report, Screen, new_report
from bench.harness.servers import Workspace
from bench.harness.stats import Latency, median_ratio
from bench.harness.targets import Target, judge
from bench.peers.seqstream import Seqstream

WORKLOAD = "w8_latency"
TARGET = Target("W8", "p99 post to event, to p99 of bare commit + XADD to XREAD", at_most=3)

_RATE = 50.0
_CONNECTIONS = 10


async def measure(options: Options, screen: Screen) -> Report:
    """Run the workload. Size: posts a second."""
    rate = float(options.sizes[0]) if options.sizes else _RATE
    title = f"W8: {rate:g} posts/s to {_CONNECTIONS} connections"
    report = new_report(WORKLOAD, title, options)
    # Twice as long as other workloads: at 50 posts a second a p99 needs it for enough samples.
    seconds = options.seconds * 2
    measured: list[_Measured] = []
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(Workspace()).path
        system = Seqstream(folder / "seqstream", env=options.service_env)
        stack.push_async_callback(system.stop)
        await system.start()
        load = Load(
            connections=_CONNECTIONS, rate=rate, seconds=seconds, text_bytes=options.text_bytes
        )
        await run_round(system, msgspec.structs.replace(load, seconds=1))
        for number in range(options.rounds):
            [project] = new_channels(1)
            await system.prepare([project])
            await wait_until_quiet(options.quiet_s)
            done = await _measure_round(
                system, folder, project, load, screen, f"round {number + 1}"
            )
            measured.append(done)
            screen.say(
                f"round {number + 1}: commit {_shown(done.commit.latency)}, XADD to XREAD "
                f"{_shown(done.round_trip.latency)}, post to event {_shown(done.run.delivery)}, "
                f"post answered {_shown(done.run.post)}"
            )
    return _report(report, measured)


class _Measured(msgspec.Struct, frozen=True):
    """One round: a bare commit, a bare XADD to XREAD, and the service."""

    commit: BareRun
    round_trip: BareRun
    run: Round


async def _measure_round(
    system: Seqstream, folder: Path, project: str, load: Load, screen: Screen, name: str
) -> _Measured:
    screen.step(f"bare commits, {name}")
    commit = await run_bare(
        system.stores, folder, "commit", project=project, concurrency=1,
        seconds=load.seconds / 2, rate=load.rate, text_bytes=load.text_bytes,
    )  # fmt: skip
    screen.step(f"XADD to XREAD, {name}")
    round_trip = await run_bare(
        system.stores, folder, "xadd_xread", project=project, concurrency=1,
        seconds=load.seconds / 2, rate=load.rate, text_bytes=load.text_bytes,
    )  # fmt: skip
    run = await run_round(system, load, progress=screen.step(f"seqstream, {name}"))
    return _Measured(commit, round_trip, run)


def _report(report: Report, measured: list[_Measured]) -> Report:
    runs = [done.run for done in measured]
    commits = [done.commit for done in measured]
    round_trips = [done.round_trip for done in measured]
    base = [
        c.latency.p99_ms + r.latency.p99_ms if c.latency and r.latency else None
        for c, r in zip(commits, round_trips, strict=True)
    ]
    base_p50 = [
        c.latency.p50_ms + r.latency.p50_ms if c.latency and r.latency else None
        for c, r in zip(commits, round_trips, strict=True)
    ]
    p99 = [run.delivery.p99_ms if run.delivery else None for run in runs]
    to_medians = median_ratio(p99, base_p50)
    note = f"to their medians: {to_medians:.2f}" if to_medians is not None else ""
    return msgspec.structs.replace(
        report,
        rounds=runs,
        figures=[
            *_figures("bare commit", [run.latency for run in commits]),
            *_figures("XADD to XREAD", [run.latency for run in round_trips]),
            *_figures("seqstream, post to event", [run.delivery for run in runs]),
            *_figures("seqstream, post to answer", [run.post for run in runs]),
        ],
        outcomes=[judge(TARGET, median_ratio(p99, base), note)],
        plots=[Plot("p99 at 50 posts a second", "ms", figure="p99")],
        sound=all(run.sound for run in runs),
    )


def _shown(latency: Latency | None) -> str:
    return f"p50 {latency.p50_ms:.2f} p99 {latency.p99_ms:.2f} ms" if latency else "nothing"


def _figures(case: str, latencies: list[Latency | None]) -> list[Figure]:
    return [
        Figure(case, "p50", "ms", tuple(e.p50_ms if e else None for e in latencies)),
        Figure(case, "p99", "ms", tuple(e.p99_ms if e else None for e in latencies)),
        Figure(case, "p99.9", "ms", tuple(e.p999_ms if e else None for e in latencies)),
        Figure(case, "samples", "", tuple(float(e.count) if e else None for e in latencies)),
    ]


main = command(measure, help_text=__doc__, sizes_help="Posts a second [50].")

if __name__ == "__main__":
    main()
