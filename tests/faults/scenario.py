"""Runs one fault from its beginning to the verdict.

The load begins, the fault happens, the load continues for a while and ends, and all clients catch
up. Then the log is read over HTTP and from Postgres, and the checkers compare everything with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import msgspec

from tests.faults.load import OWNER, PROJECT, Load, Size, longest_delay_s, longest_silence_s
from tests.faults.result import Result
from tests.faults.window_check import check_window
from tests.faults.world import Plan, SharedPostgres, World
from tests.support.api import Api
from tests.support.build_checker import BUILD_KINDS, StatusGuarantee, check_builds
from tests.support.checker import Report, check
from tests.support.history import BuildRow, LogRow
from tests.support.violations import Kind, Violation
from tests.support.waiting import wait_until

_SETTLE_TIMEOUT_S = 30.0
_READ_TIMEOUT_S = 20.0
_DELIVERY_TIMEOUT_S = 10.0
_SHOWN_CHARACTERS = 700  # from the line's end, where a trace has its error
# What asyncio, Python or a framework logs about an error that no code handled.
_UNHANDLED = re.compile(r"Traceback \(most recent call last\)|never retrieved|never awaited")


@dataclass
class Scene:
    """What a fault is given: the world, its load, a length, and seeded random numbers."""

    world: World
    load: Load
    length_s: float
    random: random.Random
    notes: list[str] = field(default_factory=list)

    async def last(self, share: float = 1.0) -> None:
        """Wait under load for the fault's length, or a share of it."""
        await asyncio.sleep(self.length_s * share)

    def answers(self) -> Counter[str]:
        """Count the answers to all attempts of posts so far, by status or error."""
        return sum((writer.answers for writer in self.load.writers), Counter())

    async def all_delivered(self) -> None:
        """Wait until the steady clients have received every message acknowledged so far.

        For use during a fault in which docs/protocol.md §2 promises delivery. The timeout is
        generous; delays are measured elsewhere.
        """
        highest = max(
            (ack.seq for writer in self.load.writers for ack in writer.acknowledgements), default=0
        )
        for client in self.load.steady:
            await client.wait_seq(highest, timeout_s=_DELIVERY_TIMEOUT_S)


@dataclass(frozen=True)
class Fault:
    """A named fault. `length_s` is its full length, `short_s` its length in `make test`.

    `silence_s` is the longest delay that docs/protocol.md allows, during the fault, between an
    acknowledgement and the message's arrival; None when it sets no limit.
    `statuses` says which clients must receive every build's statuses.
    `unavailable` returns why the fault cannot run on this machine, or None.
    """

    name: str
    inject: Callable[[Scene], Awaitable[None]]
    plan: Plan = field(default_factory=Plan)
    length_s: float = 5.0
    short_s: float = 1.5
    silence_s: float | None = None
    size: Size | None = None
    statuses: StatusGuarantee = StatusGuarantee.OPEN
    unavailable: Callable[[], str | None] = lambda: None


async def run_fault(
    fault: Fault,
    folder: Path,
    shared: SharedPostgres,
    *,
    size: Size,
    length_s: float,
    seed: int,
    before_s: float = 0.5,
    after_s: float = 0.5,
) -> Result:
    """Start a world and its load, inject the fault, and judge."""
    async with (
        World(fault.plan, folder, shared, seed=seed) as world,
        Load(world, fault.size or size, seed=seed) as load,
    ):
        scene = Scene(world, load, length_s, random.Random(f"{seed}-{fault.name}"))
        await asyncio.sleep(before_s)
        failures: list[str] = []
        try:
            await fault.inject(scene)
        except (AssertionError, TimeoutError) as error:
            failures.append(f"{fault.name}: {error or type(error).__name__}")
        await load.join()
        await asyncio.sleep(after_s)
        failures += await load.stop_writing(timeout_s=_SETTLE_TIMEOUT_S)
        settling_s = time.monotonic()
        builds = await _read_builds(world, failures)
        log = await _read_log(world, failures)
        failures += await load.settle(len(log), timeout_s=_SETTLE_TIMEOUT_S)
        settled_s = time.monotonic()
        await _wait_for_statuses(fault, load, builds, log)
        failures += [f"{c.name} gave up: {c.failure}" for c in load.clients if c.failure]
        for client in load.clients:
            await client.close()
        failures += await check_window(world, PROJECT, log)
        failures += await _end_processes(world)
        failures += _unhandled_errors(world)
        recorded = _Recorded(builds, log, failures, settled_s - settling_s)
        return _judge(fault, scene, seed, recorded)


class _BuildView(msgspec.Struct, rename="camel"):
    build_id: str
    status: str
    attempt: int
    message_seq: int
    end_seq: int | None


class _BuildList(msgspec.Struct):
    builds: list[_BuildView]


async def _read_builds(world: World, failures: list[str]) -> list[BuildRow]:
    """Return the project's builds once all have ended, or after the timeout as they are."""
    rows: list[BuildRow] = []
    turn = 0

    async def ended() -> bool:
        nonlocal turn
        turn += 1
        service = world.services[turn % len(world.services)]
        try:
            async with Api(service.url, OWNER) as api:
                response = await api.request("GET", f"/v1/projects/{PROJECT}/builds?limit=500")
            found = msgspec.json.decode(response.raise_for_status().content, type=_BuildList)
        except (httpx.TransportError, httpx.HTTPStatusError):
            return False
        rows[:] = [
            BuildRow(each.build_id, each.status, each.attempt, each.message_seq, each.end_seq)
            for each in found.builds
        ]
        return all(row.end_seq is not None for row in rows)

    try:
        await wait_until(ended, timeout_s=_SETTLE_TIMEOUT_S, what="the end of every build")
    except TimeoutError as error:
        failures.append(str(error))
    return rows


async def _wait_for_statuses(
    fault: Fault, load: Load, builds: list[BuildRow], log: list[LogRow]
) -> None:
    """Wait until clients have the statuses they must receive; the checker reports missing ones."""
    with contextlib.suppress(TimeoutError):
        await wait_until(
            lambda: not _check_builds(fault, load, builds, log),
            timeout_s=_DELIVERY_TIMEOUT_S,
            what="every status",
        )


def _check_builds(
    fault: Fault, load: Load, builds: list[BuildRow], log: list[LogRow]
) -> list[Violation]:
    assert load.build_requester is not None
    return check_builds(
        requests=load.build_requester.posts,
        acknowledgements=load.build_requester.build_acknowledgements,
        builds=builds,
        clients=load.histories(),
        log=log,
        guarantee=fault.statuses,
    )


async def _read_log(world: World, failures: list[str]) -> list[LogRow]:
    rows: list[LogRow] = []
    deadline_s = time.monotonic() + _READ_TIMEOUT_S
    for turn in range(1000):
        service = world.services[turn % len(world.services)]
        try:
            async with Api(service.url, OWNER) as api:
                rows = await api.log(PROJECT)
                break
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            if time.monotonic() > deadline_s:
                failures.append(f"the history cannot be read: {error!r}")
                break
            await asyncio.sleep(0.1)
    stored = await world.psql(
        "SELECT seq || ' ' || id || ' ' || coalesce(client_msg_id, '') FROM messages"
        f" WHERE project_id = '{PROJECT}' ORDER BY seq"
    )
    read = [f"{row.seq} {row.message_id} {row.client_msg_id or ''}" for row in rows]
    if stored.splitlines() != read:
        failures.append("the history API and Postgres do not have the same log")
    return rows


async def _end_processes(world: World) -> list[str]:
    """Send SIGTERM to every process; return failures (docs/protocol.md §6: status 0 in 10 s)."""

    async def end(name: str, ending: Awaitable[int]) -> str | None:
        try:
            status = await ending
        except TimeoutError:
            return f"{name} ignored SIGTERM"
        return None if status == 0 else f"{name} ended with {status}"

    endings = [
        end(service.name, service.terminate()) for service in world.services if service.is_running()
    ]
    assert world.worker is not None
    endings.append(end(world.worker.name, world.worker.terminate()))
    return [failure for failure in await asyncio.gather(*endings) if failure is not None]


def _unhandled_errors(world: World) -> list[str]:
    """Return one line for each process that logged an error that no code handled."""
    assert world.worker is not None
    logs = {service.name: service.log_path for service in world.services}
    logs[world.worker.name] = world.worker.log_path
    failures = []
    for name, path in logs.items():
        lines = path.read_text(errors="replace").splitlines()
        unhandled = [line for line in lines if _UNHANDLED.search(line)]
        if unhandled:
            first = unhandled[0][-_SHOWN_CHARACTERS:]
            failures.append(f"{len(unhandled)} unhandled errors in {name}'s log: {first}")
    return failures


def _check_messages(load: Load, log: list[LogRow]) -> Report:
    return check(
        posts=[post for writer in load.writers for post in writer.posts],
        acknowledgements=[ack for writer in load.writers for ack in writer.acknowledgements],
        clients=load.histories(),
        log=log,
    )


@dataclass(frozen=True)
class _Recorded:
    """What was read back after a fault, and what failed until then."""

    builds: list[BuildRow]
    log: list[LogRow]
    failures: list[str]
    caught_up_s: float


def _judge(fault: Fault, scene: Scene, seed: int, recorded: _Recorded) -> Result:
    load, builds, log = scene.load, recorded.builds, recorded.log
    assert load.build_requester is not None
    acks = [ack for writer in load.writers for ack in writer.acknowledgements]
    report = _check_messages(load, log)
    of_builds = _check_builds(fault, load, builds, log)
    failures = list(recorded.failures)
    refused = scene.answers()["429"]
    if refused:
        failures.append(f"rate limits refused {refused} posts of writers that stay below them")
    counted = (Kind.LOST, Kind.UNANNOUNCED, Kind.REPEATED, Kind.REORDERED, Kind.CHANGED)
    return Result(
        fault=fault.name,
        seed=seed,
        length_s=scene.length_s,
        clients=len(load.clients),
        posts_per_s=load.size.posts_per_s,
        acknowledged=report.acknowledged,
        in_log=len(log),
        delivered=report.delivered,
        announced_unsent=report.announced,
        reconnects=sum(client.reconnects for client in load.clients),
        longest_silence_s=longest_silence_s(load.steady, load.began_s, load.ended_s),
        longest_delay_s=longest_delay_s(load.steady, {ack.seq: ack.at_s for ack in acks}),
        allowed_delay_s=fault.silence_s,
        caught_up_s=recorded.caught_up_s,
        lost=report.count(Kind.LOST, Kind.UNANNOUNCED, Kind.ACK_MISSING),
        repeated=report.count(Kind.REPEATED, Kind.LOG_REPEAT, Kind.ACK_TWICE),
        reordered=report.count(Kind.REORDERED),
        changed=report.count(Kind.CHANGED),
        other=len(report.violations)
        - report.count(*counted, Kind.ACK_MISSING, Kind.LOG_REPEAT, Kind.ACK_TWICE)
        + sum(violation.kind not in BUILD_KINDS for violation in of_builds),
        builds_asked=len(
            {answer.build_id for answer in load.build_requester.build_acknowledgements}
        ),
        builds_ended=sum(build.end_seq is not None for build in builds),
        builds_wrong=sum(violation.kind in BUILD_KINDS for violation in of_builds),
        violations=[str(violation) for violation in (*report.violations, *of_builds)][:50],
        failures=failures,
        notes=scene.notes,
        answers=dict(scene.answers()),
        ends=dict(Counter(end for client in load.clients for end in client.ends)),
    )
