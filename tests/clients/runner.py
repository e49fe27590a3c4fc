"""Runs clients through scenarios: few at a time, each with a deadline, none a second time.

A cell that fails once is a fault to be found; so there are no retries.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import httpx

from tests.clients import nginx_front
from tests.clients.catalogue import Client
from tests.clients.cells import Cell, Outcome, State, state_of
from tests.clients.cutting_proxy import CuttingProxy
from tests.clients.installing import expand
from tests.clients.program import Broken
from tests.clients.scenarios import Scenario
from tests.clients.scene import Launch, Scene, Stuck
from tests.clients.target import Target
from tests.clients.verdict import judge

# Longer than the waits of a scenario together; it ends a run that nothing else ended.
_CELL_TIMEOUT_S = 240.0
_SHOWN = 6
_folders = count(1)


@dataclass(frozen=True)
class Job:
    """One client in one scenario."""

    client: Client
    scenario: Scenario


async def run_all(
    target: Target, jobs: Sequence[Job], folder: Path, *, at_once: int, done: Callable[[Cell], None]
) -> list[Cell]:
    """Run every job, at most `at_once` programs at a time; `done` is told each cell as it ends."""
    slots = asyncio.Semaphore(at_once)

    async def one(job: Job) -> Cell:
        async with slots:
            cell = await run_cell(target, job, folder)
        done(cell)
        return cell

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(job)) for job in jobs]
    return [task.result() for task in tasks]


async def run_cell(target: Target, job: Job, folder: Path) -> Cell:
    """Run the client, and its recipe where it is declared that the client alone cannot."""
    client, scenario = job.client, job.scenario
    lacking = [control.value for control in sorted(scenario.controls - target.controls)]
    if scenario.nginx and not nginx_front.available():
        lacking.append("nginx")
    if lacking:
        details = (f"needs {', '.join(lacking)}",)
        return Cell(client.title, scenario.name, State.NOT_RUN, details=details)
    limit = client.limit(scenario)
    bare = await run_program(target, scenario, client.command, client.heartbeat_s, folder)
    recipe = None
    if limit is not None and not bare.ok and client.recipe_command is not None:
        recipe = await run_program(
            target, scenario, client.recipe_command, client.heartbeat_s, folder
        )
    state = state_of(limit, bare, recipe, scenario.name in client.recipe_limits)
    judged = recipe or bare
    took_s = bare.took_s + (recipe.took_s if recipe else 0.0)
    return Cell(client.title, scenario.name, state, took_s, limit, judged.details)


async def run_program(
    target: Target,
    scenario: Scenario,
    command: Sequence[str],
    heartbeat_s: int | None,
    folder: Path,
) -> Outcome:
    """Run one program through one scenario on a stream of its own, and judge it."""
    own = folder / f"run-{next(_folders)}"
    own.mkdir()
    began_s = time.monotonic()
    try:
        async with asyncio.timeout(_CELL_TIMEOUT_S), contextlib.AsyncExitStack() as stack:
            channel = await stack.enter_async_context(target.channel(scenario.controls))
            host, port = channel.host, channel.port
            if scenario.nginx:
                path = channel.path(None).partition("?")[0]
                front = nginx_front.nginx_front(port, path, own)
                port = await stack.enter_async_context(front)
            proxy = await stack.enter_async_context(CuttingProxy(host, port))
            scene = Scene(target, channel, proxy, Launch(expand(command), own, heartbeat_s))
            stack.push_async_callback(scene.close)
            details = await _play(scene, scenario)
    except TimeoutError:
        details = (f"the whole took longer than {_CELL_TIMEOUT_S:.0f} s",)
    except (OSError, httpx.HTTPError, AssertionError) as error:
        # The service did not start, or did not answer: this cell's failure, not the end of the run.
        details = (f"before the client: {type(error).__name__}: {error}",)
    took_s = time.monotonic() - began_s
    if not details:
        shutil.rmtree(own, ignore_errors=True)
    return Outcome(not details, took_s, details)


async def _play(scene: Scene, scenario: Scenario) -> tuple[str, ...]:
    scene.heartbeat_s = scenario.heartbeat_s
    found: list[str] = []
    try:
        await scenario.run(scene)
    except (Stuck, Broken) as error:
        found.append(f"{error}")
    except (OSError, httpx.HTTPError) as error:
        found.append(f"{type(error).__name__}: {error}")
    program = scene.program
    if program is None:
        return tuple(found)
    reading = scene.target.reading
    faults = judge(scene.sent, program.events, reading, fetched=scene.fetched)
    found += [str(fault) for fault in faults[:_SHOWN]]
    if len(faults) > _SHOWN:
        found.append(f"and {len(faults) - _SHOWN} more")
    if found:
        found.append(f"it sent: {'; '.join(map(str, scene.proxy.requests[:_SHOWN]))}")
        found.append(f"it was answered: {scene.proxy.answers()}")
        if stderr := program.stderr_tail():
            found.append(f"it wrote: {stderr}")
    return tuple(found)
