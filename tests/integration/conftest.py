"""Fixtures of the integration tests: one shared database, a separate project for each test."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from itertools import count
from typing import Protocol

import pytest
from hypothesis import HealthCheck, settings

from service.operate.embedded import PostgresServer, RedisServer
from streams.eventlog import EventLog, EventLogConfig
from streams.log.database import Database
from streams.log.log import Log
from streams.runtime.observer import Observer
from streams.window.redis_client import RedisClient
from streams.window.window import Window
from tests.support.key_leaks import leaked_keys
from tests.support.waiting import wait_until

_numbers = count(1)

settings.register_profile(
    "servers", parent=settings.get_profile("repeatable"),
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)  # fmt: skip


@pytest.fixture(scope="session")
def shared_database_url(postgres: PostgresServer, template_database: str) -> str:
    """URL of a database that tests share; each test uses its own projects."""
    return postgres.create_database("shared", template=template_database)


@pytest.fixture(scope="session")
async def database(shared_database_url: str) -> AsyncIterator[Database]:
    """Connections to the shared database."""
    database = await Database.open(shared_database_url, size=10)
    yield database
    await database.close()


@pytest.fixture
def log(database: Database) -> Log:
    """The log."""
    return Log(database)


@pytest.fixture(scope="session")
async def redis_client(redis_server: RedisServer) -> AsyncIterator[RedisClient]:
    """A client of the session's Redis."""
    client = RedisClient(redis_server.url)
    yield client
    await client.close()


@pytest.fixture
def window(redis_client: RedisClient) -> Window:
    """The windows in the session's Redis."""
    return Window(redis_client)


class NewProject(Protocol):
    """Makes a project with a fresh id, which begins with `prefix`."""

    async def __call__(self, prefix: str = "p") -> str:
        """Return its id; its owner is `owner`."""


@pytest.fixture
def new_project(database: Database) -> NewProject:
    """Return a function that makes projects which no other test uses."""

    async def make(prefix: str = "p") -> str:
        project_id = f"{prefix}-{next(_numbers)}"
        await database.execute(
            "INSERT INTO projects (id, owner_id, name) VALUES ($1, 'owner', 'x')", project_id
        )
        return project_id

    return make


@pytest.fixture
async def project(new_project: NewProject) -> str:
    """Id of a project that only this test uses."""
    return await new_project()


class OpenLog(Protocol):
    """Opens one more event log, as a further process would."""

    async def __call__(
        self, config: EventLogConfig | None = None, *, redis_url: str | None = None,
        observer: Observer | None = None,
    ) -> EventLog:  # fmt: skip
        """Return the log; it is closed when the test ends."""


@pytest.fixture
async def open_log(shared_database_url: str, redis_server: RedisServer) -> AsyncIterator[OpenLog]:
    """Return a function that opens event logs on the shared database."""
    async with contextlib.AsyncExitStack() as stack:

        async def open_one(
            config: EventLogConfig | None = None, *, redis_url: str | None = None,
            observer: Observer | None = None,
        ) -> EventLog:  # fmt: skip
            return await stack.enter_async_context(
                EventLog.open(
                    shared_database_url, redis_url or redis_server.url,
                    config=config, observer=observer,
                )
            )  # fmt: skip

        yield open_one


@pytest.fixture(autouse=True)
async def no_leaked_keys(request: pytest.FixtureRequest) -> AsyncIterator[None]:
    """Check after every test that Redis has documented keys only, each with an expiry."""
    yield
    if "redis_server" in request.fixturenames:
        url = request.getfixturevalue("redis_server").url
        # A key and its expiry may be set by two commands.
        await wait_until(lambda: leaked_keys(url) == [], timeout_s=2, what=f"{leaked_keys(url)}")


@pytest.fixture
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that only this test uses, and may kill."""
    with RedisServer(tmp_path_factory.mktemp("redis") / "data") as server:
        yield server
