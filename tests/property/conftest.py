"""Fixtures of the state machines that run on a real Postgres."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from service.operate.embedded import PostgresServer
from tests.support.looped_database import LoopedDatabase


@pytest.fixture(scope="module")
def servers(
    request: pytest.FixtureRequest, postgres: PostgresServer, template_database: str
) -> Iterator[LoopedDatabase]:
    """Return a database that only one file uses."""
    name = request.module.__name__.rpartition(".")[2]
    made = LoopedDatabase(postgres.create_database(name, template=template_database))
    yield made
    made.close()
    postgres.psql(f'DROP DATABASE "{name}" WITH (FORCE)')
