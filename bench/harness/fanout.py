"""Fan-out compared with peers, in alternating rounds. Used by W1 and W2."""

from __future__ import annotations

from contextlib import AsyncExitStack
from pathlib import Path

import msgspec

from bench.harness.cpu import wait_until_quiet
from bench.harness.drive import Round, run_round
from bench.harness.options import Options
from bench.harness.posting import Load, RoundFailed
from bench.harness.profiling import profile_during
from bench.harness.report import Figure, Plot, Report, Screen, new_report
from bench.harness.servers import ServerError, Workspace
from bench.harness.stats import median, median_ratio
from bench.harness.targets import Outcome, Target, judge
from bench.peers.base import System
from bench.peers.go_servers import Centrifugo, Mercure
from bench.peers.nchan import NchanMemory, NchanRedis
from bench.peers.python_app import LitestarChannels, SubscriberEach
from bench.peers.seqstream import Seqstream
from service.operate.embedded import EmbeddedError

# In the order of their rounds: the yardstick follows seqstream, under the same conditions.
PEERS: tuple[type[System], ...] = (
    NchanRedis, NchanMemory, Centrifugo, Mercure, LitestarChannels, SubscriberEach,
)  # fmt: skip
YARDSTICK = NchanRedis

_WARM_UP_S = 1.0


class FanoutTargets(msgspec.Struct, frozen=True):
    """The targets of one fan-out workload, as ratios to the yardstick."""

    cpu: Target
    p99: Target
    lost: Target


async def measure_fanout(
    workload: str, title: str, load: Load, targets: FanoutTargets, options: Options, screen: Screen
) -> Report:
    """Measure a fan-out load on seqstream and on every peer that is installed."""
    report = new_report(workload, title, options)
    rounds: list[Round] = []
    with Workspace() as workspace:
        async with AsyncExitStack() as stack:
            systems = [await _started(Seqstream(workspace.path / "seqstream",
                                                env=options.service_env), stack)]  # fmt: skip
            if options.peers:
                systems += await _started_peers(workspace.path, stack, report, screen)
            for number in range(options.rounds):
                for system in systems:
                    if number and not _repeated(system):
                        continue
                    done = await _one(system, load, number, options.quiet_s, screen, report)
                    if done is not None:
                        rounds.append(done)
            if options.profile:
                screen.step("profile of seqstream")
                report.notes.append(
                    await profile_during(
                        systems[0].pids["service"], workload, load.seconds,
                        lambda begin: run_round(systems[0], load, during=begin),
                    )
                )  # fmt: skip
    figures = [figure for system in systems for figure in _figures(system.name, rounds)]
    ours = [entry for entry in rounds if entry.system == Seqstream.name]
    return msgspec.structs.replace(
        report,
        rounds=rounds,
        figures=figures,
        outcomes=_outcomes(targets, rounds),
        plots=[
            Plot("CPU per million deliveries", "seconds", figure="CPU all"),
            Plot("p99 from post to event", "ms", figure="p99"),
        ],
        notes=report.notes + _notes(rounds),
        sound=len(ours) == options.rounds and all(entry.sound for entry in ours),
    )


async def _started(system: System, stack: AsyncExitStack) -> System:
    stack.push_async_callback(system.stop)
    await system.start()
    return system


async def _started_peers(
    folder: Path, stack: AsyncExitStack, report: Report, screen: Screen
) -> list[System]:
    systems = []
    for peer in PEERS:
        why = peer.missing()
        if why is None:
            try:
                systems.append(await _started(peer(folder / peer.__name__), stack))
                continue
            except (ServerError, EmbeddedError) as error:
                why = str(error).splitlines()[0]
        note = f"{peer.name} skipped: {why}"
        report.notes.append(note)
        screen.say(note)
    return systems


def _repeated(system: System) -> bool:
    """Tell whether a system is measured in every round: seqstream and its yardsticks."""
    return isinstance(system, (Seqstream, YARDSTICK))


async def _one(
    system: System, load: Load, number: int, quiet_s: float, screen: Screen, report: Report
) -> Round | None:
    load = msgspec.structs.replace(load, rate=load.rate * system.rate_share)
    advance = screen.step(f"{system.name}, round {number + 1}")
    try:
        if number == 0:
            await run_round(system, msgspec.structs.replace(load, seconds=_WARM_UP_S))
        await wait_until_quiet(quiet_s)
        done = await run_round(system, load, progress=advance)
    except RoundFailed as error:
        report.notes.append(f"{system.name}, round {number + 1} failed: {error}")
        screen.say(report.notes[-1])
        return None
    screen.say(describe(done))
    return done


def describe(done: Round) -> str:
    """Return one line that describes a round's result."""
    latency = done.delivery
    shown = f"p50 {latency.p50_ms:.2f} p99 {latency.p99_ms:.2f} ms" if latency else "no deliveries"
    per_role = " + ".join(
        f"{value:.2f} {role}" for role, value in done.cpu_per_million.items() if value is not None
    )
    sound = "" if done.sound else "  [red]NOT SOUND[/red]"
    return (
        f"{done.system:<18} {done.posts_per_s:7.0f} posts/s {done.deliveries:>9,} deliveries  "
        f"CPU-s/million {per_role}  {shown}  others {done.others_share:.0%}{sound}"
    )


def _figures(name: str, rounds: list[Round]) -> list[Figure]:
    mine = [entry for entry in rounds if entry.system == name]
    if not mine:
        return []
    latencies = [entry.delivery for entry in mine]

    def figure(what: str, unit: str, values: list[float | None]) -> Figure:
        return Figure(name, what, unit, tuple(values))

    def role(key: str) -> list[float | None]:
        return [entry.cpu_per_million.get(key) for entry in mine]

    return [
        figure("posts", "per s", [entry.posts_per_s for entry in mine]),
        figure("CPU service", "s/million", role("service")),
        figure("CPU Redis", "s/million", role("redis")),
        figure("CPU Postgres", "s/million", role("postgres")),
        figure("CPU all", "s/million", [entry.cpu_per_million_total for entry in mine]),
        figure("p50", "ms", [entry.p50_ms if entry else None for entry in latencies]),
        figure("p99", "ms", [entry.p99_ms if entry else None for entry in latencies]),
        figure("p99.9", "ms", [entry.p999_ms if entry else None for entry in latencies]),
        figure("post p99", "ms", [entry.post.p99_ms if entry.post else None for entry in mine]),
        figure("reads", "per event", [entry.reads_per_delivery for entry in mine]),
        figure("bytes", "per event", [entry.bytes_per_delivery for entry in mine]),
        figure("lost", "", [float(entry.lost) for entry in mine]),
        figure("reader", "of a core", [entry.reader_share for entry in mine]),
        figure("poster", "of a core", [entry.poster_share for entry in mine]),
        figure("others", "of a core", [entry.others_share for entry in mine]),
    ]


def _without_postgres(entry: Round) -> float | None:
    """Return the CPU of service and Redis per million deliveries, which the target compares."""
    parts = [entry.cpu_per_million.get(role) for role in ("service", "redis")]
    present = [part for part in parts if part is not None]
    return sum(present) if present else None


def _p99(entry: Round) -> float | None:
    return entry.delivery.p99_ms if entry.delivery else None


def _outcomes(targets: FanoutTargets, rounds: list[Round]) -> list[Outcome]:
    ours = [entry for entry in rounds if entry.system == Seqstream.name]
    theirs = [entry for entry in rounds if entry.system == YARDSTICK.name]
    cpu, base_cpu = ([_without_postgres(e) for e in side] for side in (ours, theirs))
    p99, base_p99 = ([_p99(e) for e in side] for side in (ours, theirs))
    return [
        judge(targets.cpu, median_ratio(cpu, base_cpu), _pair(cpu, base_cpu, "s/million")),
        judge(targets.p99, median_ratio(p99, base_p99), _pair(p99, base_p99, "ms")),
        judge(targets.lost, float(sum(e.lost + e.violation_count for e in ours)) if ours else None),
    ]


def _pair(ours: list[float | None], theirs: list[float | None], unit: str) -> str:
    mine, base = median(ours), median(theirs)
    if mine is None or base is None:
        return ""
    return f"{mine:.3g} to {base:.3g} {unit}"


def _notes(rounds: list[Round]) -> list[str]:
    notes = [
        f"{entry.system}: lost {entry.lost}, violations {entry.violation_count} "
        f"{list(entry.violations[:3])}, post errors {entry.post_errors}"
        for entry in rounds
        if not entry.sound
    ]
    for system in dict.fromkeys(entry.system for entry in rounds):
        last = [entry for entry in rounds if entry.system == system][-1]
        calls = {what: n for what, n in last.counts.items() if n >= 5}
        if calls and last.posted:
            shown = ", ".join(f"{what} {n / last.posted:.2f}" for what, n in _most(calls))
            notes.append(f"{system}, per post: {shown}")
    return notes


def _most(calls: dict[str, int], top: int = 8) -> list[tuple[str, int]]:
    return sorted(((what[:60], n) for what, n in calls.items()), key=lambda pair: -pair[1])[:top]
