"""W3: appends to one project by the library, against single-row commits of the same insert."""

from __future__ import annotations

from contextlib import AsyncExitStack

import msgspec

from bench.harness.bare_runs import BareRun, Kind, run_bare
from bench.harness.cpu import wait_until_quiet
from bench.harness.options import Options, command
from bench.harness.posting import new_channels
from bench.harness.report import Figure, Plot, Report, Screen, new_report
from bench.harness.servers import Stores, Workspace
from bench.harness.stats import median_ratio
from bench.harness.targets import Target, judge
from streams.eventlog import EventLog

WORKLOAD = "w3_append"
TARGET = Target("W3", "appends per s, library, to single-row commits", at_least=10, unit=" x")
SINGLE_CONNECTIONS = 8

_USER = "bench"


async def measure(options: Options, screen: Screen) -> Report:
    """Run the workload. Sizes: numbers of concurrent appends; the last one is judged."""
    concurrencies = options.sizes or (1, 1000)
    title = f"W3: appends to one project, {options.text_bytes}-byte texts"
    report = new_report(WORKLOAD, title, options)
    cases: dict[str, tuple[Kind, int]] = {
        f"single rows, {SINGLE_CONNECTIONS} connections": ("single_row", SINGLE_CONNECTIONS),
        **{f"seqstream library, {n} at once": ("library", n) for n in concurrencies},
    }
    runs: dict[str, list[BareRun]] = {case: [] for case in cases}
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(Workspace()).path
        stores = Stores(folder)
        stack.push_async_callback(stores.stop)
        await stores.start()
        for number in range(options.rounds):
            for case, (kind, concurrency) in cases.items():
                screen.step(f"{case}, round {number + 1}")
                await wait_until_quiet(options.quiet_s)
                [project] = new_channels(1)
                await _create(stores, project)
                run = await run_bare(
                    stores, folder, kind, project=project, concurrency=concurrency,
                    seconds=options.seconds, text_bytes=options.text_bytes,
                )  # fmt: skip
                await _verify(stores, project, run.done)
                runs[case].append(run)
                screen.say(f"{case:<34} {run.per_s:9,.0f} appends/s")
    single, *_, judged = runs.values()
    measured = median_ratio([r.per_s for r in judged], [r.per_s for r in single])
    return msgspec.structs.replace(
        report,
        figures=[figure for case, found in runs.items() for figure in _figures(case, found)],
        outcomes=[judge(TARGET, measured)],
        plots=[Plot("Appends per second, one project", "per second", figure="appends")],
    )


async def _create(stores: Stores, project: str) -> None:
    async with EventLog.open(stores.database_url, stores.redis.url) as log:
        await log.projects.create(project, _USER, "bench")


async def _verify(stores: Stores, project: str, appended: int) -> None:
    """Check that every append is in the log, and that seqs have no gap."""
    query = f"SELECT count(*), max(seq) FROM messages WHERE project_id = '{project}'"
    found = stores.postgres.psql(query, database=stores.database).strip()
    if found != f"{appended}|{appended}":
        raise AssertionError(f"{appended} appends, but count|max in the log is {found}")


def _figures(case: str, runs: list[BareRun]) -> list[Figure]:
    def cpu(role: str) -> tuple[float, ...]:
        return tuple(run.cpu_s[role] / run.done * 1e6 for run in runs)

    return [
        Figure(case, "appends", "per s", tuple(run.per_s for run in runs)),
        Figure(case, "p50", "ms", tuple(r.latency.p50_ms if r.latency else None for r in runs)),
        Figure(case, "p99", "ms", tuple(r.latency.p99_ms if r.latency else None for r in runs)),
        Figure(case, "CPU Postgres", "us/append", cpu("postgres")),
        Figure(case, "CPU Redis", "us/append", cpu("redis")),
        Figure(case, "own process", "of a core", tuple(run.own_share for run in runs)),
    ]


main = command(measure, help_text=__doc__, sizes_help="Concurrent appends [1, 1000].")

if __name__ == "__main__":
    main()
