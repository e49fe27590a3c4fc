"""Fixtures of the build tests: a service with short leases and a database per test file."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path

import pytest

from service.operate.embedded import PostgresServer, RedisServer
from tests.support.build_environment import BuildEnvironment, build_environment
from tests.support.processes import ServiceProcess, service_environment

_numbers = count(1)

# Changes of status that a client sees of a build that completes in its first attempt.
ONE_ATTEMPT = [("queued", 0), ("in_progress", 1), ("completed", 1)]
SLOW_COMMAND = f"{sys.executable} -c 'import time; print(\"on it\", flush=True); time.sleep(60)'"


@pytest.fixture(scope="module")
def builds_database(postgres: PostgresServer, template_database: str) -> Iterator[str]:
    """URL of a database for this file; each test creates its own project in it."""
    yield postgres.create_database("builds", template=template_database)
    postgres.psql('DROP DATABASE "builds" WITH (FORCE)')


@pytest.fixture(scope="module")
async def service(
    builds_database: str, redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[ServiceProcess]:
    """One service for this file, with build leases of one second."""
    environment = service_environment(
        builds_database, redis_server.url, {"SEQSTREAM_BUILD_LEASE_SECONDS": "1"}
    )
    async with ServiceProcess("service", tmp_path_factory.mktemp("builds"), environment) as process:
        yield process


@pytest.fixture
async def home(
    service: ServiceProcess, builds_database: str, postgres: PostgresServer, tmp_path: Path
) -> AsyncIterator[BuildEnvironment]:
    """A project on this file's servers; all builds are deleted at the end of the test."""
    project = f"built-{next(_numbers)}"
    async with build_environment(service, project, tmp_path, service.environment) as made:
        yield made
    postgres.psql("DELETE FROM builds", database="builds")
