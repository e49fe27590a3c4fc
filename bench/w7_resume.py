"""W7: 1,000 clients resume at once, each 150 messages behind, against 1,000 fresh connections."""

from __future__ import annotations

import asyncio
import math
from contextlib import AsyncExitStack
from typing import Literal

import msgspec

from bench.harness import counters
from bench.harness.child import ChildError
from bench.harness.cpu import wait_until_quiet
from bench.harness.drive import close_readers, finish_readers, open_readers
from bench.harness.messages import Expected
from bench.harness.options import Options, command
from bench.harness.posting import Load, new_channels, post_some
from bench.harness.report import Figure, Plot, Report, Screen, new_report
from bench.harness.servers import Workspace
from bench.harness.stats import median, median_ratio
from bench.harness.targets import Target, judge
from bench.peers.seqstream import Seqstream

WORKLOAD = "w7_resume"
TIME = Target("W7", "time until all have caught up, to fresh connections", at_most=2, unit=" x")
REDIS = Target("W7", "Redis reads for all resumes", at_most=20)
POSTGRES = Target("W7", "Postgres reads for all resumes, beside membership, polls", at_most=5)

_BEHIND = 150
_CURSOR = 40
_FLUSH_TIMEOUT_S = 10.0
_PERIODIC_S = 2.5
_READS = frozenset({"xrange", "xrevrange", "xread", "xlen", "xinfo", "xinfo|stream", "get"})

Case = Literal["fresh", "from memory", "from Redis", "from Postgres"]
CASES: tuple[Case, ...] = ("fresh", "from memory", "from Redis", "from Postgres")
_JUDGED: Case = "from Redis"


class Resume(msgspec.Struct, frozen=True):
    """One crowd of connections: seconds until the last is live, and the stores' commands."""

    seconds: float
    redis_reads: int
    postgres_reads: int
    membership_reads: int
    redis_calls: dict[str, int]
    statements: dict[str, int]


async def measure(options: Options, screen: Screen) -> Report:
    """Run the workload. Size: the number of clients."""
    clients = options.sizes[0] if options.sizes else 1000
    title = f"W7: {clients} clients at once, each {_BEHIND} messages behind"
    report = new_report(WORKLOAD, title, options)
    runs: dict[Case, list[Resume]] = {case: [] for case in CASES}
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(Workspace()).path
        system = Seqstream(folder / "seqstream", env=options.service_env)
        stack.push_async_callback(system.stop)
        await system.start()
        for number in range(options.rounds):
            for case in CASES:
                screen.step(f"{case}, round {number + 1}")
                [channel] = new_channels(1)
                await system.prepare([channel])
                await post_some(system, channel, _CURSOR + _BEHIND, options.text_bytes)
                try:
                    await wait_until_quiet(options.quiet_s)
                    resume = await _one(system, channel, case, clients)
                except ChildError as error:
                    report.notes.append(f"{case}, round {number + 1} failed: {error}")
                    screen.say(report.notes[-1])
                    continue
                runs[case].append(resume)
                screen.say(
                    f"{case:<14} {resume.seconds:6.2f} s  reads: {resume.redis_reads} Redis, "
                    f"{resume.postgres_reads} Postgres, {resume.membership_reads} membership"
                )
    judged = runs[_JUDGED]
    ratio = median_ratio([r.seconds for r in judged], [r.seconds for r in runs["fresh"]])
    return msgspec.structs.replace(
        report,
        figures=[figure for case, found in runs.items() for figure in _figures(case, found)],
        outcomes=[
            judge(TIME, ratio, _JUDGED),
            judge(REDIS, median(float(r.redis_reads) for r in judged), _JUDGED),
            judge(POSTGRES, median(float(r.postgres_reads) for r in judged), _JUDGED),
        ],
        plots=[Plot("Until all clients are live", "seconds", figure="all live")],
        notes=report.notes + [_asked(case, found[-1]) for case, found in runs.items() if found],
        sound=all(len(found) == options.rounds for found in runs.values()),
    )


async def _one(system: Seqstream, channel: str, case: Case, clients: int) -> Resume:
    """Let a crowd connect. Raises `ChildError` when a connection misses a message."""
    if case == "from Postgres":
        await _flush_redis(system)
    if case == "from memory":
        # One reader that is already open: the process has a tail with the newest messages.
        await _crowd(system, channel, 1, 0)
    else:
        await system.stop_service()
        await system.start_service()
    periodic = await _periodic_statements(system)
    redis_url, database_url = system.stores.redis.url, system.stores.database_url
    calls = await counters.redis_calls(redis_url)
    statements = await counters.statements(database_url)
    seconds = await _crowd(system, channel, clients, None if case == "fresh" else _CURSOR)
    new_statements = counters.difference(statements, await counters.statements(database_url))
    new_calls = counters.difference(calls, await counters.redis_calls(redis_url))
    membership = {text: n for text, n in new_statements.items() if "project_members" in text}
    return Resume(
        seconds=seconds,
        redis_reads=sum(n for name, n in new_calls.items() if name in _READS),
        postgres_reads=sum(
            max(n - math.ceil(periodic.get(text, 0.0) * seconds), 0)
            for text, n in new_statements.items()
            if text not in membership
        ),
        membership_reads=sum(membership.values()),
        redis_calls=new_calls,
        statements=new_statements,
    )


async def _periodic_statements(system: Seqstream) -> dict[str, float]:
    """Return the statements a second that the service runs periodically, with one reader.

    Polls of heads and builds are not part of a resume, and are subtracted from its statements.
    """
    [channel] = new_channels(1)
    await system.prepare([channel])
    async with AsyncExitStack() as stack:
        load = Load(connections=1, rate=0, seconds=0)
        readers, _ = await open_readers(stack, system, [system.stream(channel, 1)], load)
        before = await counters.statements(system.stores.database_url)
        await asyncio.sleep(_PERIODIC_S)
        after = await counters.statements(system.stores.database_url)
        await finish_readers(readers, {})
        await close_readers(readers)
    return {text: n / _PERIODIC_S for text, n in counters.difference(before, after).items()}


async def _crowd(system: Seqstream, channel: str, clients: int, cursor: int | None) -> float:
    expected = _CURSOR + _BEHIND - cursor if cursor is not None else 0
    numbers = Expected(expected, 0)
    group = system.stream(channel, clients, cursor=cursor)
    load = Load(connections=clients, rate=0, seconds=0)
    async with AsyncExitStack() as stack:
        readers, seconds = await open_readers(
            stack, system, [group], load, connect_concurrency=clients
        )
        await finish_readers(readers, {channel: numbers})
        [result] = await close_readers(readers)
    if result.lost or result.violation_count:
        raise ChildError(f"lost {result.lost}, violations {result.violations[:3]}")
    return seconds


async def _flush_redis(system: Seqstream) -> None:
    process = await asyncio.create_subprocess_exec(
        str(system.stores.redis.cli), "-p", str(system.stores.redis.port), "FLUSHALL",
        stdout=asyncio.subprocess.DEVNULL, env=system.stores.redis.cli_environment,
    )  # fmt: skip
    await asyncio.wait_for(process.wait(), _FLUSH_TIMEOUT_S)


def _asked(case: Case, resume: Resume) -> str:
    statements = {text[:70]: n for text, n in resume.statements.items()}
    return f"{case}, last round: Redis {resume.redis_calls}; Postgres {statements}"


def _figures(case: Case, runs: list[Resume]) -> list[Figure]:
    return [
        Figure(case, "all live", "s", tuple(run.seconds for run in runs)),
        Figure(case, "Redis reads", "", tuple(float(run.redis_reads) for run in runs)),
        Figure(case, "Postgres reads", "", tuple(float(run.postgres_reads) for run in runs)),
        Figure(case, "membership reads", "", tuple(float(r.membership_reads) for r in runs)),
    ]


main = command(measure, help_text=__doc__, sizes_help="Clients [1000].")

if __name__ == "__main__":
    main()
