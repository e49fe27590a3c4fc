"""Servers that tests share: one Postgres and one Redis a session, a fresh database a test.

Faults that hurt a server start their own; see `tests/faults/`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Protocol

import pytest
import redis
from hypothesis import settings

from service.operate.embedded import PostgresServer, RedisServer
from tests.support.processes import (
    ServiceProcess,
    log_tail,
    migrate,
    postgres_folder,
    service_environment,
)

# The same examples every time: a failure is a change of the code, and can be repeated.
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.load_profile("repeatable")

_TEMPLATE = "seqstream_template"
_database_numbers = count(1)


class StartService(Protocol):
    """Starts one more service process, with settings of its own, and waits until it is ready."""

    async def __call__(self, settings: Mapping[str, str] | None = None) -> ServiceProcess:
        """Return the running process."""


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Postgres for the session, without fsync: nothing here outlives it."""
    with postgres_folder() as folder:
        server = PostgresServer(
            folder / "data",
            fsync=False,
            settings={"max_connections": "200", "full_page_writes": "off"},
        )
        with server:
            yield server


@pytest.fixture
def own_postgres() -> Iterator[PostgresServer]:
    """A Postgres of the test's own, which it may stop."""
    with (
        postgres_folder() as folder,
        PostgresServer(folder / "data", fsync=False) as server,
    ):
        yield server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Redis for the session; tests that stop or hurt it start their own."""
    with RedisServer(tmp_path_factory.mktemp("redis") / "data") as server:
        yield server


@pytest.fixture(scope="session")
def template_database(postgres: PostgresServer) -> str:
    """Name of a database with the newest schema, to make others from."""
    migrate(postgres.create_database(_TEMPLATE))
    return _TEMPLATE


@pytest.fixture
def database_url(postgres: PostgresServer, template_database: str) -> Iterator[str]:
    """URL of a fresh, migrated database."""
    name = f"test_{next(_database_numbers)}"
    yield postgres.create_database(name, template=template_database)
    postgres.psql(f'DROP DATABASE "{name}" WITH (FORCE)')


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """URL of the session's Redis, emptied."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
async def start_service(
    database_url: str, redis_url: str, tmp_path: Path
) -> AsyncIterator[StartService]:
    """Start service processes on the test's database; they are ended with the test."""
    started: list[ServiceProcess] = []

    async def start(settings: Mapping[str, str] | None = None) -> ServiceProcess:
        environment = service_environment(database_url, redis_url, settings)
        process = ServiceProcess(f"service-{len(started) + 1}", tmp_path, environment)
        started.append(process)
        await process.start()
        return process

    try:
        yield start
    finally:
        for process in started:
            await process.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Show what a failed test's processes wrote: every log in the test's own folder."""
    report = yield
    folder = item.funcargs.get("tmp_path") if isinstance(item, pytest.Function) else None
    if report.failed and isinstance(folder, Path):
        for log in sorted(folder.glob("*.log")):
            report.sections.append((f"the end of {log.name}", log_tail(log)))
    return report
