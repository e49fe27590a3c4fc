"""Servers that tests share: one Postgres and one Redis per session, a fresh database per test.

A test that stops or breaks a server starts its own; see `tests/faults/`.
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

# Hypothesis generates the same examples in every run, so a failure can be reproduced.
settings.register_profile("repeatable", derandomize=True, database=None, deadline=None)
settings.load_profile("repeatable")

_TEMPLATE = "seqstream_template"
_database_numbers = count(1)


class StartService(Protocol):
    """Starts another service process, with optional settings, and waits until it is ready."""

    async def __call__(self, settings: Mapping[str, str] | None = None) -> ServiceProcess:
        """Return the running process."""


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """Postgres for the session. fsync is off because no data is kept after the session."""
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
    """A Postgres for one test, which the test may stop."""
    with (
        postgres_folder() as folder,
        PostgresServer(folder / "data", fsync=False) as server,
    ):
        yield server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """Redis for the session; a test that stops or breaks Redis starts its own."""
    with RedisServer(tmp_path_factory.mktemp("redis") / "data") as server:
        yield server


@pytest.fixture(scope="session")
def template_database(postgres: PostgresServer) -> str:
    """Name of a database with the newest schema, used as the template for test databases."""
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
    """URL of the session's Redis, after a FLUSHALL."""
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    return redis_server.url


@pytest.fixture
async def start_service(
    database_url: str, redis_url: str, tmp_path: Path
) -> AsyncIterator[StartService]:
    """Start service processes on the test's database; they are stopped at the end of the test."""
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
    """Add the end of each log in the failed test's temporary folder to the report."""
    report = yield
    folder = item.funcargs.get("tmp_path") if isinstance(item, pytest.Function) else None
    if report.failed and isinstance(folder, Path):
        for log in sorted(folder.glob("*.log")):
            report.sections.append((f"the end of {log.name}", log_tail(log)))
    return report
