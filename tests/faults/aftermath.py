"""What is read back after a fault: builds, answers, the log, and how the processes ended.

Each function adds to `failures`, or returns, what could not be read or must not be. The verdict is
in `verdict.py`.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable

import httpx
import msgspec

from tests.faults.load import OWNER, PROJECT
from tests.faults.world import World
from tests.support.api import Api
from tests.support.history import BuildRow, LogRow
from tests.support.waiting import wait_until

_END_TIMEOUT_S = 30.0
_READ_TIMEOUT_S = 20.0
_SHOWN_CHARACTERS = 700  # from the line's end, where a trace has its error
# What asyncio, Python or a framework logs about an error that no code handled.
_UNHANDLED = re.compile(r"Traceback \(most recent call last\)|never retrieved|never awaited")


class _BuildView(msgspec.Struct, rename="camel"):
    build_id: str
    status: str
    attempt: int
    message_seq: int
    end_seq: int | None


class _BuildList(msgspec.Struct):
    builds: list[_BuildView]


async def read_builds(world: World, failures: list[str]) -> list[BuildRow]:
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
        await wait_until(ended, timeout_s=_END_TIMEOUT_S, what="the end of every build")
    except TimeoutError as error:
        failures.append(str(error))
    return rows


async def wait_for_answers(world: World, failures: list[str]) -> None:
    """Wait until every answer has ended: also those that were begun and never acknowledged."""

    async def ended() -> bool:
        unfinished = "SELECT count(*) FROM answers WHERE end_seq IS NULL"
        return int(await world.psql(unfinished)) == 0

    try:
        await wait_until(ended, timeout_s=_END_TIMEOUT_S, what="the end of every answer")
    except TimeoutError as error:
        failures.append(str(error))


async def read_log(world: World, failures: list[str]) -> list[LogRow]:
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


async def end_processes(world: World) -> list[str]:
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


def unhandled_errors(world: World) -> list[str]:
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
