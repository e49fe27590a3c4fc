"""Third-party clients read the stream: httpx-sse, sseclient-py, npm `eventsource`."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import msgspec
import pytest
from httpx_sse import aconnect_sse
from sseclient import SSEClient

from tests.acceptance.conftest import NewProject, Project, Services
from tests.support.processes import ServiceProcess, service_environment
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import wait_until

_NODE = Path(__file__).parent / "node"
_TEXTS = [
    "plain",
    "two\nlines\r\n\rmore",
    "data: x\n\nid: 99\nevent: stream.closing",
    "\u2028\u2029\x85\ufeff",
    "🧵" * 3000,
]


async def _post_all(project: Project) -> None:
    for text in _TEXTS:
        await project.api.post(project.id, text)


def _text_of(data: str) -> str:
    text = msgspec.json.decode(data)["content"]["text"]
    assert isinstance(text, str)
    return text


async def test_httpx_sse_reads_a_replay(services: Services, project: Project) -> None:
    """§6: the id is the seq, and the data is one line, whatever characters the text has."""
    await _post_all(project)
    got = []
    async with httpx.AsyncClient(trust_env=False, verify=False) as http:
        url = services.a.url + project.stream("from_seq=0")
        async with aconnect_sse(http, "GET", url, timeout=10) as source:
            async for event in source.aiter_sse():
                if event.event == "message.replay":
                    got.append((event.id, _text_of(event.data)))
                if event.event == "stream.live":
                    break
    assert got == [(str(seq), text) for seq, text in enumerate(_TEXTS, start=1)]


async def test_httpx_sse_reads_live_messages(services: Services, project: Project) -> None:
    """§6: live messages have the same form as replayed ones."""
    got: list[tuple[str, str]] = []
    async with httpx.AsyncClient(trust_env=False, verify=False) as http:
        url = services.b.url + project.stream()
        async with aconnect_sse(http, "GET", url, timeout=10) as source:
            async for event in source.aiter_sse():
                if event.event == "stream.live":
                    await _post_all(project)
                elif event.event == "message.new":
                    got.append((event.id, _text_of(event.data)))
                if len(got) == len(_TEXTS):
                    break
    assert got == [(str(seq), text) for seq, text in enumerate(_TEXTS, start=1)]


async def test_sseclient_reads_a_replay(services: Services, project: Project) -> None:
    """§6: another SSE parser, and a synchronous HTTP client."""
    await _post_all(project)
    url = services.a.url + project.stream("from_seq=0")

    def read() -> list[tuple[str, str]]:
        got = []
        with httpx.Client(trust_env=False, verify=False) as http, http.stream("GET", url) as answer:
            for event in SSEClient(answer.iter_raw()).events():
                if event.event == "message.replay":
                    got.append((str(event.id), _text_of(event.data)))
                if event.event == "stream.live":
                    break
        return got

    got = await asyncio.to_thread(read)
    assert got == [(str(seq), text) for seq, text in enumerate(_TEXTS, start=1)]


@pytest.fixture(scope="module")
def node_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the npm package; skips without node, npm or access to its registry."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("needs node and npm")
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json", "follow.mjs"):
        shutil.copy(_NODE / name, folder)
    installed = subprocess.run(
        [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=folder, capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    if installed.returncode != 0:
        pytest.skip("npm could not install the package eventsource")
    return folder


@pytest.fixture
async def fast_retry(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServiceProcess]:
    """A process that sends `retry: 100`, so clients reconnect after 100 ms."""
    environment = service_environment(
        services.database_url, services.redis.url, {"SEQSTREAM_RETRY_MS": "100"}
    )
    folder = tmp_path_factory.mktemp("fast_retry")
    async with ServiceProcess("fast_retry", folder, environment) as process:
        yield process


class _Line(msgspec.Struct):
    event: str
    id: str = ""
    data: str = ""


async def test_npm_eventsource_reconnects_and_resumes(
    fast_retry: ServiceProcess, new_project: NewProject, node_package: Path
) -> None:
    """§6: it reconnects with `Last-Event-ID`, which takes precedence over the old URL's cursor."""
    project = await new_project(fast_retry)
    await project.fill(2)
    lines: list[_Line] = []
    async with TcpProxy(fast_retry.port) as proxy:
        url = f"http://127.0.0.1:{proxy.port}{project.stream('from_seq=0')}"
        process = await asyncio.create_subprocess_exec(
            "node", "follow.mjs", url, cwd=node_package, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, limit=1 << 20,
        )  # fmt: skip

        async def read() -> None:
            assert process.stdout is not None
            while line := await process.stdout.readline():
                lines.append(msgspec.json.decode(line, type=_Line))

        reading = asyncio.create_task(read())
        try:

            def count(event: str) -> int:
                return sum(line.event == event for line in lines)

            await wait_until(lambda: count("stream.live") == 1, timeout_s=20, what="live")
            await project.fill(4)
            await wait_until(lambda: count("message.new") == 2, what="live messages")
            assert proxy.cut() >= 1
            await project.fill(7)
            await wait_until(lambda: count("stream.live") == 2, timeout_s=20, what="live again")
            await project.fill(9)
            await wait_until(lambda: lines[-1].id == "9", what="the last message")
        finally:
            process.terminate()
            await process.wait()
            await reading
    messages = [(line.event, line.id) for line in lines if line.event.startswith("message.")]
    seqs = [int(event_id) for _, event_id in messages]
    assert seqs == list(range(1, 10))
    assert [seq for name, seq in messages if name == "message.replay"][:2] == ["1", "2"]
