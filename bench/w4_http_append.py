"""W4: single posts over HTTP to one process, against single-row commits of the same insert."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from bench.harness.bare_runs import BareRun, run_bare
from bench.harness.cpu import wait_until_quiet
from bench.harness.options import Options, command
from bench.harness.posting import Posted, new_channels, run_posts
from bench.harness.profiling import profile_during
from bench.harness.report import Figure, Plot, Report, Screen, new_report
from bench.harness.servers import Workspace
from bench.harness.stats import median, median_ratio
from bench.harness.targets import Target, judge
from bench.peers.seqstream import Seqstream
from bench.w3_append import SINGLE_CONNECTIONS

WORKLOAD = "w4_http_append"
TARGET = Target("W4", "posts per s over HTTP to single-row commits", at_least=1.5, unit=" x")


async def measure(options: Options, screen: Screen) -> Report:
    """Run the workload. Sizes: numbers of posting connections; the largest one is judged."""
    concurrencies = sorted(options.sizes or (1, 128))
    title = f"W4: single posts over HTTP, one project, {options.text_bytes}-byte texts"
    report = new_report(WORKLOAD, title, options)
    single: list[BareRun] = []
    runs: dict[int, list[Posted]] = {n: [] for n in concurrencies}
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(Workspace()).path
        system = Seqstream(folder / "seqstream", env=options.service_env)
        stack.push_async_callback(system.stop)
        await system.start()
        await run_posts(system, concurrency=16, seconds=1, text_bytes=options.text_bytes)
        for number in range(options.rounds):
            screen.step(f"single rows, round {number + 1}")
            single.append(await _single_rows(system, folder, options))
            screen.say(
                f"single rows, {SINGLE_CONNECTIONS} connections {single[-1].per_s:9,.0f} per s"
            )
            for concurrency in concurrencies:
                screen.step(f"posts, {concurrency} connections, round {number + 1}")
                await wait_until_quiet(options.quiet_s)
                run = await run_posts(
                    system, concurrency=concurrency, seconds=options.seconds,
                    text_bytes=options.text_bytes,
                )  # fmt: skip
                verify_log(system, run)
                runs[concurrency].append(run)
                screen.say(_line(concurrency, run))
        if options.profile:
            screen.step("profile of the service")
            report.notes.append(
                await profile_during(
                    system.pids["service"], WORKLOAD, options.seconds,
                    lambda begin: run_posts(
                        system, concurrency=concurrencies[-1], seconds=options.seconds,
                        text_bytes=options.text_bytes, during=begin,
                    ),
                )
            )  # fmt: skip
    return _report(report, single, runs)


async def _single_rows(system: Seqstream, folder: Path, options: Options) -> BareRun:
    """Measure single-row commits of the log's insert."""
    [project] = new_channels(1)
    await system.prepare([project])
    await wait_until_quiet(options.quiet_s)
    return await run_bare(
        system.stores, folder, "single_row", project=project, concurrency=SINGLE_CONNECTIONS,
        seconds=options.seconds, text_bytes=options.text_bytes,
    )  # fmt: skip


def _report(report: Report, single: list[BareRun], runs: dict[int, list[Posted]]) -> Report:
    judged = runs[max(runs)]
    case = f"single rows, {SINGLE_CONNECTIONS} connections"
    rates = [bare.per_s for bare in single]
    latencies = [bare.latency for bare in single]
    baseline = [
        Figure(case, "appends", "per s", tuple(rates)),
        Figure(case, "p50", "ms", tuple(e.p50_ms if e else None for e in latencies)),
        Figure(case, "p99", "ms", tuple(e.p99_ms if e else None for e in latencies)),
    ]
    ours = [figure for n, found in runs.items() for figure in _figures(n, found)]
    return msgspec.structs.replace(
        report,
        figures=baseline + ours,
        outcomes=[judge(TARGET, median_ratio([run.posts_per_s for run in judged], rates))],
        plots=[
            Plot("Appends per second over HTTP", "per second", figure="appends"),
            latency_plot(runs),
        ],
        sound=not any(run.errors for found in runs.values() for run in found),
    )


def latency_plot(runs: dict[int, list[Posted]]) -> Plot:
    """Return the plot of post latency over the number of posting connections."""
    series: dict[str, list[tuple[float, float]]] = {}
    for name in ("p50_ms", "p99_ms"):
        points = []
        for concurrency, found in runs.items():
            value = median(getattr(run.post, name) if run.post else None for run in found)
            if value is not None:
                points.append((float(concurrency), value))
        series[name.removesuffix("_ms")] = points
    return Plot("Post latency over concurrency", "ms", x_label="connections", series=series)


def verify_log(system: Seqstream, run: Posted) -> None:
    """Check that every answered post is in the log, and that seqs have no gap."""
    stores = system.stores
    query = f"SELECT count(*), max(seq) FROM messages WHERE project_id = '{run.channel}'"
    found = stores.postgres.psql(query, database=stores.database).strip()
    if not run.errors and found != f"{run.posted}|{run.posted}":
        raise AssertionError(f"{run.posted} posts, but count|max in the log is {found}")


def _line(concurrency: int, run: Posted) -> str:
    latency = f"p50 {run.post.p50_ms:.2f} p99 {run.post.p99_ms:.2f} ms" if run.post else ""
    errors = f"  [red]errors {run.errors}[/red]" if run.errors else ""
    return (
        f"posts, {concurrency:>3} connections {run.posts_per_s:14,.0f} per s  {latency}  "
        f"poster {run.poster_share:.0%} of a core{errors}"
    )


def _figures(concurrency: int, runs: list[Posted]) -> list[Figure]:
    case = f"seqstream over HTTP, {concurrency} connections"

    def cpu(role: str) -> tuple[float | None, ...]:
        return tuple(run.cpu_s[role] / run.posted * 1e6 if run.posted else None for run in runs)

    return [
        Figure(case, "appends", "per s", tuple(run.posts_per_s for run in runs)),
        Figure(case, "p50", "ms", tuple(run.post.p50_ms if run.post else None for run in runs)),
        Figure(case, "p99", "ms", tuple(run.post.p99_ms if run.post else None for run in runs)),
        Figure(case, "CPU service", "us/post", cpu("service")),
        Figure(case, "CPU Redis", "us/post", cpu("redis")),
        Figure(case, "CPU Postgres", "us/post", cpu("postgres")),
        Figure(case, "poster", "of a core", tuple(run.poster_share for run in runs)),
    ]


main = command(measure, help_text=__doc__, sizes_help="Posting connections [1, 128].")

if __name__ == "__main__":
    main()
