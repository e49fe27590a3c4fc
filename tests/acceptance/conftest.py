"""Fixtures of the acceptance tests: two service processes on one database and one Redis.

A test that needs other settings, or stops or breaks a server, starts its own.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import NamedTuple, Protocol

import pytest

from service.operate.embedded import PostgresServer, RedisServer
from tests.support.api import Api
from tests.support.completions_server import CompletionsServer
from tests.support.key_leaks import leaked_keys
from tests.support.plan_mode import Assistant
from tests.support.processes import ServiceProcess, service_environment
from tests.support.signing import token
from tests.support.waiting import wait_until

_numbers = count(1)


class Services(NamedTuple):
    """Two processes that serve the same projects."""

    a: ServiceProcess
    b: ServiceProcess
    database_url: str
    redis: RedisServer


@pytest.fixture(scope="session")
def shared_url(postgres: PostgresServer, template_database: str) -> str:
    """URL of the database that the acceptance tests share."""
    return postgres.create_database("accepted", template=template_database)


@pytest.fixture(scope="session")
async def services(
    shared_url: str, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Services]:
    """Two running processes with default limits."""
    folder = tmp_path_factory.mktemp("services")
    environment = service_environment(shared_url, redis_server.url)
    async with (
        ServiceProcess("a", folder, environment) as a,
        ServiceProcess("b", folder, environment) as b,
    ):
        yield Services(a, b, shared_url, redis_server)


@pytest.fixture(scope="session")
async def unlimited(
    services: Services, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServiceProcess]:
    """A process without the post limit: only there is a post handled without an asyncio task."""
    environment = service_environment(
        services.database_url, services.redis.url, {"SEQSTREAM_POSTS_PER_SECOND": "0"}
    )
    folder = tmp_path_factory.mktemp("unlimited")
    async with ServiceProcess("unlimited", folder, environment) as process:
        yield process


@pytest.fixture(params=["limited", "unlimited"])
def each_post_path(request: pytest.FixtureRequest, services: Services) -> Services:
    """The processes, with `a` once limiting posts and once not: both code paths of a post."""
    if request.param == "limited":
        return services
    return services._replace(a=request.getfixturevalue("unlimited"))


@pytest.fixture(scope="module")
async def assistant(
    shared_url: str, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Assistant]:
    """One for each file that uses it. A lease of 1 s: soon after a process died its answers end."""
    async with CompletionsServer() as endpoint:
        settings = {
            "SEQSTREAM_ASSISTANT_URL": endpoint.url,
            "SEQSTREAM_ASSISTANT_MODEL": "m",
            "SEQSTREAM_ASSISTANT_KEY": "k" * 40,
            "SEQSTREAM_ANSWER_LEASE_SECONDS": "1",
        }
        environment = service_environment(shared_url, redis_server.url, settings)
        folder = tmp_path_factory.mktemp("assistant")
        async with ServiceProcess("assistant", folder, environment) as service:
            yield Assistant(endpoint, service)


class Project(NamedTuple):
    """A project for one test: an API client that signs as the owner, and a stream token."""

    id: str
    api: Api
    token: str

    @property
    def messages(self) -> str:
        """Path of its messages."""
        return f"/v1/projects/{self.id}/chat/messages"

    def stream(self, query: str = "") -> str:
        """Path of its stream, with the token and further query parameters."""
        return f"/v1/projects/{self.id}/chat/stream?token={self.token}" + (
            f"&{query}" if query else ""
        )

    async def fill(self, total: int, *, text: str = "x") -> None:
        """Post batches until the project has `total` messages."""
        head = (await self.api.history_page(self.id, limit=1)).head_seq
        while head < total:
            size = min(500, total - head)
            body = {"messages": [{"message": f"{text} {head + k}"} for k in range(1, size + 1)]}
            response = await self.api.request("POST", f"{self.messages}/batch", body)
            assert response.status_code == 201, response.text
            head += size


class NewProject(Protocol):
    """Creates another project, by default through process `a`."""

    async def __call__(self, process: ServiceProcess | None = None) -> Project:
        """Return the project, owned by the user `owner`."""


@pytest.fixture
async def new_project(request: pytest.FixtureRequest) -> AsyncIterator[NewProject]:
    """Create projects for one test."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(process: ServiceProcess | None = None) -> Project:
            process = process or request.getfixturevalue("services").a
            api = await stack.enter_async_context(Api(process.url, "owner"))
            project_id = f"acc-{next(_numbers)}"
            await api.create_project(project_id)
            return Project(project_id, api, token("owner"))

        yield make


@pytest.fixture
async def project(services: Services, new_project: NewProject) -> Project:
    """A project for one test, on the shared services."""
    return await new_project(services.a)


@pytest.fixture(autouse=True)
async def no_leaked_keys(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Check after every test that Redis holds only documented keys, each with an expiry."""
    yield
    if "redis_server" in request.fixturenames or "services" in request.fixturenames:
        url = request.getfixturevalue("redis_server").url
        # A key and its expiry may be set by two commands, so the expiry may come later.
        await wait_until(lambda: leaked_keys(url) == [], timeout_s=2, what=f"{leaked_keys(url)}")


@pytest.fixture
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis for one test, which the test may stop or break."""
    with RedisServer(tmp_path_factory.mktemp("redis") / "data") as server:
        yield server
