"""The documented programs that use the Python client run as they are printed."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator

from tests.acceptance.conftest import Project, Services
from tests.support.api import Api
from tests.support.processes import ROOT
from tests.support.signing import token


@contextlib.asynccontextmanager
async def _running(services: Services, *words: str) -> AsyncIterator[asyncio.StreamReader]:
    environment = {
        "PATH": "",
        "SEQSTREAM_URL": services.a.url,
        "SEQSTREAM_TOKEN": token("owner", scope="read write"),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, *words, env=environment, cwd=ROOT,
        stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            yield process.stdout
    finally:
        process.terminate()
        await process.wait()


async def test_the_documented_follow_example_prints_messages(
    services: Services, project: Project
) -> None:
    """`docs/examples/follow.py`: its own message, the ones before, and those that follow."""
    await project.fill(2)
    async with _running(services, "docs/examples/follow.py", project.id, "1") as lines:
        assert await lines.readline() == b"sent as seq 3\n"
        assert await lines.readline() == b"2 owner: x 2\n"
        assert await lines.readline() == b"3 owner: hello from Python\n"
        await project.fill(4)
        assert await lines.readline() == b"4 owner: x 4\n"


async def test_the_documented_snippet_prints_messages(services: Services) -> None:
    """`docs/snippets/python_client.py`: the client in five lines."""
    async with Api(services.a.url, "owner") as api:
        await api.create_project("demo")
        async with _running(services, "docs/snippets/python_client.py") as lines:
            assert await lines.readline() == b"1 hello\n"
            await api.post("demo", "next")
            assert await lines.readline() == b"2 next\n"
