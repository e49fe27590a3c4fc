"""The suite in short: clients that need no installation, on the scenarios that lose most.

The libraries are those of the project's own environment; `make clients` runs every client through
every scenario. The last tests show that a client that loses is found out.
"""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.operate.embedded import PostgresServer, RedisServer
from tests.clients import scenarios
from tests.clients.cells import Outcome
from tests.clients.runner import run_program
from tests.clients.seqstream_target import SeqstreamTarget, seqstream_on

_PYTHON = {
    name: [sys.executable, f"programs/python/{name}.py"]
    for name in (
        "httpx_lines_bare", "httpx_lines_recipe", "httpx_sse_bare", "httpx_sse_recipe",
        "sseclient_py_bare", "sseclient_py_recipe",
    )
}  # fmt: skip
_SHELL = {name: ["bash", f"programs/shell/{name}.sh"] for name in ("curl_bare", "curl_recipe")}
_HEARTBEAT_S = 2
_SCENARIOS = {scenario.name: scenario for scenario in scenarios.ALL}


@pytest.fixture(scope="module")
async def target(
    postgres: PostgresServer,
    template_database: str,
    redis_server: RedisServer,
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[SeqstreamTarget]:
    """The service on the session's servers."""
    url = postgres.create_database("clients", template=template_database)
    async with seqstream_on(url, redis_server.url, tmp_path_factory.mktemp("clients")) as target:
        yield target


async def _run(target: SeqstreamTarget, name: str, program: str, folder: Path) -> Outcome:
    command = {**_PYTHON, **_SHELL}[program]
    return await run_program(target, _SCENARIOS[name], command, _HEARTBEAT_S, folder)


@pytest.mark.parametrize(
    ("scenario", "programs"),
    [
        ("live", ["httpx_lines_bare", "curl_bare"]),
        ("cut-early", ["httpx_sse_recipe", "sseclient_py_recipe", "curl_recipe"]),
        ("cut-middle", ["httpx_sse_recipe", "httpx_lines_recipe", "curl_recipe"]),
        ("hostile-texts", ["httpx_sse_bare", "sseclient_py_bare", "httpx_lines_bare"]),
    ],
)
async def test_clients_get_every_message_once(
    target: SeqstreamTarget, tmp_path: Path, scenario: str, programs: list[str]
) -> None:
    """§6: whatever happens to a connection, a client that resumes misses and repeats nothing."""
    if shutil.which("curl") is None or shutil.which("bash") is None:
        programs = [program for program in programs if program not in _SHELL]
    outcomes = await asyncio.gather(
        *(_run(target, scenario, program, tmp_path) for program in programs)
    )
    failed = {
        program: outcome.details
        for program, outcome in zip(programs, outcomes, strict=True)
        if not outcome.ok
    }
    assert failed == {}


async def test_a_client_that_does_not_reconnect_is_found_out(
    target: SeqstreamTarget, tmp_path: Path
) -> None:
    """The scenario cuts, and the verdict names what was lost."""
    outcome = await _run(target, "cut-middle", "sseclient_py_bare", tmp_path)
    assert not outcome.ok
    assert "the program ended with status 1" in outcome.details
    assert any(detail.startswith("lost: message 2") for detail in outcome.details)


async def test_a_client_that_loses_its_cursor_is_found_out(
    target: SeqstreamTarget, tmp_path: Path
) -> None:
    """It reconnects, gets the last message, and has lost those before it."""
    command = ["bash", "-c", "while true; do bash programs/shell/curl_bare.sh; sleep 0.2; done"]
    outcome = await run_program(target, _SCENARIOS["cut-early"], command, None, tmp_path)
    assert not outcome.ok
    assert any(detail.startswith("lost: message") for detail in outcome.details)
    assert any("no cursor; GET with no cursor" in detail for detail in outcome.details)
