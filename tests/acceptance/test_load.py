"""`seqstream load` as users run it: against a real service, its figures and its verdict."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator

import msgspec
import pytest

from service.operate.load_figures import LoadReport
from tests.acceptance.conftest import NewProject, Services
from tests.support.processes import ROOT, ServiceProcess, service_environment
from tests.support.signing import token
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
async def unlimited_service(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServiceProcess]:
    """A process without the limits of a user."""
    settings = {"SEQSTREAM_MAX_STREAMS_PER_USER": "0", "SEQSTREAM_POSTS_PER_SECOND": "0"}
    environment = service_environment(services.database_url, services.redis.url, settings)
    folder = tmp_path_factory.mktemp("unlimited")
    async with ServiceProcess("unlimited", folder, environment) as process:
        yield process


def _command(url: str, *words: str) -> tuple[list[str], dict[str, str]]:
    environment = {
        "PATH": "",
        "SEQSTREAM_URL": url,
        "SEQSTREAM_TOKEN": token("owner", scope="read write"),
    }
    return [sys.executable, "-m", "service", "load", *words], environment


async def _load(url: str, *words: str) -> subprocess.CompletedProcess[str]:
    command, environment = _command(url, *words)
    return await asyncio.to_thread(
        subprocess.run, command, env=environment, cwd=ROOT, timeout=90, text=True,
        capture_output=True, stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip


async def test_a_clean_run_counts_every_delivery(
    unlimited_service: ServiceProcess, new_project: NewProject
) -> None:
    """Two projects, twelve streams: each message of a project on each of its streams."""
    one, two = await new_project(unlimited_service), await new_project(unlimited_service)
    await one.fill(3)
    words = ("--connections", "12", "--rate", "30", "--seconds", "1", "--json")
    done = await _load(unlimited_service.url, one.id, two.id, *words)
    assert done.returncode == 0, done.stderr
    report = msgspec.json.decode(done.stdout, type=LoadReport)
    assert (report.clean, report.posted, report.deliveries) == (True, 30, 15 * 12)
    assert [row.deliveries for row in report.verdict.connections] == [15] * 12
    assert report.post_latency is not None
    assert report.event_latency is not None
    assert report.event_latency.count == 15 * 12
    assert len(await one.api.log(one.id)) == 3 + 15


async def test_a_run_over_cut_connections_is_clean_and_says_so(
    unlimited_service: ServiceProcess, new_project: NewProject
) -> None:
    """Reconnects are counted; nothing is lost or repeated by them. The verdict is the last line."""
    project = await new_project(unlimited_service)
    async with TcpProxy(unlimited_service.port) as proxy:
        command, environment = _command(
            f"http://127.0.0.1:{proxy.port}", project.id,
            "--connections", "5", "--rate", "20", "--seconds", "2",
        )  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            *command, env=environment, cwd=ROOT, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        for head in (5, 15, 25):
            await _posted(project.api.history_page, project.id, head)
            proxy.cut()
        async with asyncio.timeout(60):
            printed, errors = await process.communicate()
    lines = printed.decode().splitlines()
    assert process.returncode == 0, printed + errors
    assert lines[-1] == "clean: lost 0, repeated 0, reordered 0, changed 0"
    assert any(line.startswith("stream ended: ") for line in lines)


async def _posted(history_page: object, project_id: str, head: int) -> None:
    async def reached() -> bool:
        page = await history_page(project_id, limit=1)  # type: ignore[operator]
        return bool(page.head_seq >= head)

    await wait_until(reached, timeout_s=40, what=f"{head} posts")


async def test_streams_that_are_refused_are_named(
    services: Services, new_project: NewProject
) -> None:
    """The limit of a user is the commonest mistake: the run ends before the first post."""
    project = await new_project(services.a)
    words = ("--connections", "11", "--seconds", "1", "--patience", "1")
    done = await _load(services.a.url, project.id, *words)
    assert done.returncode == 1
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("error: 10 of 11 streams are live after 1 s: RATE_LIMITED")
    assert await project.api.log(project.id) == []
