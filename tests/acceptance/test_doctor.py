"""docs/protocol.md §7: `doctor --verify` compares each stream with its log."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import redis

from streams.window import keys
from tests.acceptance.conftest import Project, Services
from tests.support.processes import ROOT, service_environment


async def _doctor(services: Services, project_id: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "service", "doctor", "--verify", project_id],
        capture_output=True, text=True, timeout=60, cwd=ROOT, check=False,
        env=service_environment(services.database_url, services.redis.url),
    )  # fmt: skip


async def test_doctor_accepts_a_correct_window(services: Services, project: Project) -> None:
    """§7: it checks servers, schema and window, and exits with 0."""
    await project.fill(3)
    done = await _doctor(services, project.id)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "up to date" in done.stdout


async def test_doctor_reports_a_window_that_differs_from_the_log(
    services: Services, project: Project
) -> None:
    """§7: it names the seq whose content differs, and exits with 1."""
    with redis.Redis.from_url(services.redis.url) as client:
        client.xadd(
            keys.stream(project.id),
            {"event": "message.new", "data": "{}", "at": "1"},
            id="1-0",
        )
    done = await _doctor(services, project.id)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "differs at seq 1" in " ".join(done.stdout.split())
    with redis.Redis.from_url(services.redis.url) as client:
        client.delete(keys.stream(project.id))
