"""A service with one project, and real workers that carry out the project's builds."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import psutil  # type: ignore[import-untyped]

from tests.support.api import Api
from tests.support.history import LogRow
from tests.support.processes import ServiceProcess
from tests.support.signing import token
from tests.support.sse_client import SseClient
from tests.support.waiting import wait_until
from tests.support.workers import WorkerProcess


class BuildAnswer(msgspec.Struct, rename="camel"):
    """The answer to a message that requests a build."""

    success: bool
    queued: bool
    seq: int
    message_id: str
    timestamp: str
    build_id: str
    version_id: str
    status: str
    client_msg_id: str | None = msgspec.field(name="client_msg_id", default=None)


async def ask(
    api: Api, project_id: str, client_msg_id: str | None = None, *, status: int = 201
) -> BuildAnswer:
    """Request a build; the answer must have this HTTP status."""
    body: dict[str, object] = {"projectId": project_id, "message": "make it", "mode": "build"}
    if client_msg_id is not None:
        body["client_msg_id"] = client_msg_id
    response = await api.request("POST", "/v1/chat/unified", body)
    assert response.status_code == status, response.text
    return msgspec.json.decode(response.content, type=BuildAnswer)


def ends(log: list[LogRow]) -> list[LogRow]:
    """Return the messages of a log that end a build."""
    return [row for row in log if b'"type":"build_' in row.data]


class BuildEnvironment:
    """A service and a project; starts workers and clients for it, and stops them at the end."""

    def __init__(
        self,
        service: ServiceProcess,
        api: Api,
        project: str,
        folder: Path,
        environment: dict[str, str],
    ) -> None:
        self.service = service
        self.api = api
        self.project = project
        self.environment = environment
        self._folder = folder
        self._stack = contextlib.AsyncExitStack()
        self._started: list[WorkerProcess] = []

    async def worker(self, command: str = "", **settings: str) -> WorkerProcess:
        """Start a worker that runs `command` for each build; `settings` are by their full names."""
        own = {"SEQSTREAM_BUILD_COMMAND": command, **settings}
        worker = WorkerProcess(
            f"worker-{len(self._started) + 1}", self._folder, self.environment | own
        )
        self._started.append(worker)
        worker.spawn()
        return worker

    async def client(self, from_seq: int | None = 0, name: str = "client") -> SseClient:
        """Open a stream and wait until it is live."""
        client = SseClient(
            name, [self.service.url], self.project, token("alice"), from_seq=from_seq
        )
        await self._stack.enter_async_context(client)
        await client.wait_live()
        return client

    async def status_of(self, build_id: str) -> str:
        """Read the build's status over HTTP."""
        response = await self.api.request("GET", f"/v1/projects/{self.project}/builds/{build_id}")
        return str(response.json()["status"])

    async def wait_status(self, build_id: str, status: str, timeout_s: float = 30.0) -> None:
        """Wait until the build has this status; raises `TimeoutError` otherwise."""

        async def has() -> bool:
            return await self.status_of(build_id) == status

        await wait_until(has, timeout_s=timeout_s, what=f"status {status}")

    async def close(self) -> None:
        """Kill the workers and close the clients."""
        for worker in self._started:
            # SIGKILL: after SIGTERM a worker waits its grace period for a running build.
            await worker.kill()
        await self._stack.aclose()


@contextlib.asynccontextmanager
async def build_environment(
    service: ServiceProcess, project: str, folder: Path, environment: dict[str, str]
) -> AsyncIterator[BuildEnvironment]:
    """Create a project that alice owns, and the environment for its builds."""
    async with Api(service.url, "alice") as api:
        await api.create_project(project)
        made = BuildEnvironment(service, api, project, folder, environment)
        try:
            yield made
        finally:
            await made.close()


async def children(pid: int, *, at_least: int = 1) -> list[int]:
    """Return the process ids of all descendants, once there are `at_least` so many."""
    found: list[int] = []

    def there() -> bool:
        found[:] = [child.pid for child in psutil.Process(pid).children(recursive=True)]
        return len(found) >= at_least

    await wait_until(there, what="child processes")
    return found


def is_alive(pid: int) -> bool:
    """Tell whether the process runs; a zombie does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
