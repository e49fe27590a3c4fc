"""W5: many projects with one connection each, 1,000 messages a second over all of them."""

from __future__ import annotations

from contextlib import AsyncExitStack

import msgspec

from bench.harness.cpu import wait_until_quiet
from bench.harness.drive import Round, run_round
from bench.harness.options import Options, command
from bench.harness.posting import Load, RoundFailed
from bench.harness.profiling import profile_during
from bench.harness.report import Figure, Plot, Report, Screen, new_report
from bench.harness.servers import Workspace
from bench.harness.stats import median, median_ratio
from bench.harness.targets import Target, judge
from bench.peers.seqstream import Seqstream

WORKLOAD = "w5_projects"
_RATE = 1000


async def measure(options: Options, screen: Screen) -> Report:
    """Run the workload. Sizes: numbers of projects; the largest is compared with the smallest."""
    sizes = sorted(options.sizes or (10, 100, 1000, 5000))
    report = new_report(WORKLOAD, "W5: N projects, one connection each, 1000 messages/s", options)
    # One round less than in other workloads: four sizes with thousands of connections take long.
    rounds = max(options.rounds - 1, 1)
    runs: dict[int, list[Round]] = {size: [] for size in sizes}
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(Workspace()).path
        system = Seqstream(folder / "seqstream", env=options.service_env)
        stack.push_async_callback(system.stop)
        await system.start()
        for number in range(rounds):
            for size in sizes:
                advance = screen.step(f"{size} projects, round {number + 1}")
                # A new process: the state that earlier sizes left in it would be measured too.
                await wait_until_quiet(options.quiet_s)
                await system.stop_service()
                await system.start_service()
                try:
                    done = await run_round(system, _load(size, options), progress=advance)
                except RoundFailed as error:
                    report.notes.append(f"{size} projects, round {number + 1} failed: {error}")
                    screen.say(report.notes[-1])
                    continue
                runs[size].append(done)
                screen.say(_line(size, done))
        if options.profile:
            screen.step("profile of the service")
            load = _load(sizes[-1], options)
            report.notes.append(
                await profile_during(
                    system.pids["service"], WORKLOAD, load.seconds,
                    lambda begin: run_round(system, load, during=begin),
                )
            )  # fmt: skip
    return _report(report, runs, rounds)


def _load(size: int, options: Options) -> Load:
    return Load(
        connections=1, channels=size, rate=_RATE, seconds=options.seconds,
        text_bytes=options.text_bytes,
    )  # fmt: skip


def _report(report: Report, runs: dict[int, list[Round]], rounds: int) -> Report:
    sizes = sorted(runs)
    target = Target(
        "W5", f"CPU per message (service, Redis, Postgres), {sizes[-1]} to {sizes[0]} projects",
        at_most=1.5, unit=" x",
    )  # fmt: skip
    first, last = ([_per_message(done) for done in runs[size]] for size in (sizes[0], sizes[-1]))
    return msgspec.structs.replace(
        report,
        rounds=[done for found in runs.values() for done in found],
        figures=[figure for size, found in runs.items() for figure in _figures(size, found)],
        outcomes=[judge(target, median_ratio(last, first))],
        plots=[projects_plot(runs)],
        notes=report.notes + [note for found in runs.values() for note in _unsound(found)],
        sound=all(
            len(found) == rounds and all(done.sound for done in found) for found in runs.values()
        ),
    )


def projects_plot(runs: dict[int, list[Round]]) -> Plot:
    """Return the plot of CPU per message over active projects, by process and in total."""
    series: dict[str, list[tuple[float, float]]] = {}
    for role in ("service", "redis", "postgres", "all"):
        points = []
        for size, found in runs.items():
            value = median(_per_message(done, role) for done in found)
            if value is not None:
                points.append((float(size), value))
        series[role] = points
    return Plot("CPU per message over projects", "us", x_label="projects", series=series)


def _per_message(done: Round, role: str = "all") -> float | None:
    if not done.posted:
        return None
    seconds = sum(done.cpu_s.values()) if role == "all" else done.cpu_s[role]
    return seconds / done.posted * 1e6


def _line(size: int, done: Round) -> str:
    latency = done.delivery
    shown = f"p50 {latency.p50_ms:.2f} p99 {latency.p99_ms:.2f} ms" if latency else ""
    parts = " + ".join(f"{_per_message(done, role):.0f} {role}" for role in done.cpu_s)
    sound = "" if done.sound else "  [red]NOT SOUND[/red]"
    return f"{size:>5} projects {done.posts_per_s:6.0f} posts/s  us/message {parts}  {shown}{sound}"


def _figures(size: int, runs: list[Round]) -> list[Figure]:
    case = f"{size} projects"
    latencies = [done.delivery for done in runs]

    def cpu(role: str) -> tuple[float | None, ...]:
        return tuple(_per_message(done, role) for done in runs)

    return [
        Figure(case, "posts", "per s", tuple(done.posts_per_s for done in runs)),
        Figure(case, "CPU service", "us/message", cpu("service")),
        Figure(case, "CPU Redis", "us/message", cpu("redis")),
        Figure(case, "CPU Postgres", "us/message", cpu("postgres")),
        Figure(case, "CPU all", "us/message", cpu("all")),
        Figure(case, "p50", "ms", tuple(e.p50_ms if e else None for e in latencies)),
        Figure(case, "p99", "ms", tuple(e.p99_ms if e else None for e in latencies)),
        Figure(case, "lost", "", tuple(float(done.lost) for done in runs)),
    ]


def _unsound(runs: list[Round]) -> list[str]:
    return [
        f"{done.load.channels} projects: lost {done.lost}, violations {done.violation_count} "
        f"{list(done.violations[:3])}, post errors {done.post_errors}"
        for done in runs
        if not done.sound
    ]


main = command(measure, help_text=__doc__, sizes_help="Projects [10, 100, 1000, 5000].")

if __name__ == "__main__":
    main()
