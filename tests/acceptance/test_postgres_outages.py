"""docs/protocol.md §4: health and posts while Postgres hangs or its schema is wrong.

Each test has its own database; a test that stops Postgres has its own server.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from itertools import count
from pathlib import Path

import httpx
import msgspec
import pytest

from service.operate.embedded import PostgresServer
from tests.conftest import StartService
from tests.support.api import Api
from tests.support.hanging_postgres import hanging
from tests.support.processes import (
    ServiceProcess,
    migrate,
    service_environment,
)
from tests.support.raw_stream import raw_request
from tests.support.signing import token
from tests.support.waiting import wait_until

_databases = count(1)


@pytest.fixture
def name(postgres: PostgresServer) -> Iterator[str]:
    """Name of an empty database."""
    made = f"away_{next(_databases)}"
    postgres.create_database(made)
    yield made
    postgres.psql(f'DROP DATABASE "{made}" WITH (FORCE)')


@contextlib.asynccontextmanager
async def _serving(
    folder: Path, database_url: str, redis_url: str, settings: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[ServiceProcess, httpx.AsyncClient]]:
    """A service process, possibly not ready yet, and a client without credentials."""
    process = ServiceProcess(
        "service", folder, service_environment(database_url, redis_url, settings)
    )
    process.spawn()
    try:
        async with httpx.AsyncClient(
            base_url=process.url, trust_env=False, verify=False, timeout=20
        ) as http:
            yield process, http
    finally:
        await process.stop()


async def _wait_health(
    process: ServiceProcess, http: httpx.AsyncClient, status: int, check: str, text: str
) -> None:
    """Wait until `/health/ready` has this status and its check starts with this text."""
    last = ""

    async def reported() -> bool:
        nonlocal last
        assert process.is_running(), process.log_tail()
        try:
            response = await http.get("/health/ready")
        except httpx.TransportError:
            return False
        last = response.text
        found: str = response.json()["checks"][check]
        return response.status_code == status and found.startswith(text)

    try:
        await wait_until(reported, timeout_s=30, what=f"{status} with {check}: {text}")
    except TimeoutError as error:
        raise AssertionError(f"{error}; last {last}") from None


async def test_an_unmigrated_database_is_reported_and_may_be_migrated_later(
    postgres: PostgresServer, name: str, redis_url: str, tmp_path: Path
) -> None:
    """§4: the check names the command; the process keeps running and is ready after `migrate`."""
    url = postgres.database_url(name)
    async with _serving(tmp_path, url, redis_url) as (process, http):
        await _wait_health(process, http, 503, "schema", "run seqstream migrate (0001_log.sql,")
        assert process.log_path.read_text().count("run seqstream migrate") == 1
        migrate(url)
        await _wait_health(process, http, 200, "schema", "ok")
        async with Api(process.url, "owner") as api:
            await api.create_project("p")
            assert (await api.post("p", "x", "c")).seq == 1


@pytest.mark.parametrize(
    ("breaking", "status", "text"),
    [("false", 200, "newer than this code: 9999_x"), ("true", 503, "newer than this code, which")],
)
async def test_a_newer_schema_is_served_unless_it_is_marked_breaking(
    postgres: PostgresServer, name: str, redis_url: str, tmp_path: Path,
    breaking: str, status: int, text: str,
) -> None:  # fmt: skip
    """§4: in a rolling upgrade old processes serve a newer schema that does not break them."""
    url = postgres.database_url(name)
    migrate(url)
    postgres.psql(
        "INSERT INTO schema_migrations (number, name, breaking)"
        f" VALUES (9999, '9999_x.sql', {breaking})",
        database=name,
    )
    async with _serving(tmp_path, url, redis_url) as (process, http):
        await _wait_health(process, http, status, "schema", text)


@pytest.mark.parametrize(
    ("break_sql", "restore_sql"),
    [
        ("ALTER TABLE messages RENAME TO away", "ALTER TABLE away RENAME TO messages"),
        ("ALTER TABLE projects RENAME TO away", "ALTER TABLE away RENAME TO projects"),
    ],
)
async def test_a_temporarily_missing_table_stops_no_loop(
    postgres: PostgresServer,
    name: str,
    redis_url: str,
    tmp_path: Path,
    break_sql: str,
    restore_sql: str,
) -> None:
    """§4: as during a restore: posts are 503, all loops continue, no restart is needed."""
    url = postgres.database_url(name)
    migrate(url)
    async with (
        _serving(tmp_path, url, redis_url) as (process, http),
        Api(process.url, "owner") as api,
    ):
        await _wait_health(process, http, 200, "schema", "ok")
        await api.create_project("p")
        target = f"/v1/projects/p/chat/stream?token={token('owner')}"
        async with raw_request(process.port, target) as stream:
            await stream.wait_for("stream.live")
            postgres.psql(break_sql, database=name)
            await _wait_health(process, http, 503, "schema", "tables missing")
            body = {"message": "x", "client_msg_id": "c"}
            path = "/v1/projects/p/chat/messages"
            posted = await api.request("POST", path, body)
            assert (posted.status_code, posted.json()["code"]) == (503, "STORE_UNAVAILABLE")
            postgres.psql(restore_sql, database=name)
            await _wait_health(process, http, 200, "schema", "ok")
            # Append directly in SQL, so that only the heads poll can deliver it.
            postgres.psql(
                "SELECT outcome FROM seqstream_append(ARRAY['p'], ARRAY[0],"
                " ARRAY[gen_random_uuid()], ARRAY[NULL]::text[], ARRAY['owner'], ARRAY['polled'],"
                " ARRAY['user'], ARRAY['chat'], ARRAY['client'], ARRAY[NULL]::text[],"
                " ARRAY[NULL]::text[], ARRAY[NULL]::bytea[])",
                database=name,
            )
            await stream.wait_for("message.new")
            assert (await api.request("POST", path, body)).status_code == 201
        assert (await http.get("/health/live")).status_code == 200


_POSTS = {
    "/v1/projects/p/chat/messages": {"message": "x"},
    "/v1/projects/p/chat/messages/": {"message": "x"},
    "/v1/projects/p/chat/messages/batch": {"messages": [{"message": "x"}]},
    "/v1/chat/unified": {"projectId": "p", "message": "x", "stream": True},
    "/v1/chat/unified?": {"projectId": "p", "message": "x", "mode": "build"},
}


@pytest.mark.parametrize("redis", ["up", "down"])
async def test_a_post_refused_with_503_does_not_count_against_the_rate(
    postgres: PostgresServer, name: str, redis_url: str, tmp_path: Path, redis: str
) -> None:
    """§6, limits: after an outage the sender has the full burst, and no more; on all routes."""
    url = postgres.database_url(name)
    migrate(url)
    redis_url = redis_url if redis == "up" else "redis://127.0.0.1:1/0"
    slow = {"SEQSTREAM_POSTS_PER_SECOND": "1"}
    async with (
        _serving(tmp_path, url, redis_url, slow) as (process, http),
        Api(process.url, "owner") as api,
    ):
        await _wait_health(process, http, 200, "schema", "ok")
        await api.create_project("p")
        postgres.psql("ALTER TABLE messages RENAME TO away", database=name)
        for path, body in [*_POSTS.items()] * 3:
            posted = await api.request("POST", path.rstrip("?"), body)
            assert posted.status_code == 503, (path, posted.text)
        postgres.psql("ALTER TABLE away RENAME TO messages", database=name)
        path = "/v1/projects/p/chat/messages"
        statuses = await asyncio.gather(*(_status(api, path) for _ in range(20)))
        assert statuses.count(201) >= 4
        assert 429 in statuses


async def _status(api: Api, path: str) -> int:
    return (await api.request("POST", path, {"message": "x"})).status_code


async def test_a_hanging_postgres_is_reported_and_posts_get_503(
    own_postgres: PostgresServer, redis_url: str, tmp_path: Path
) -> None:
    """§4: health responds from the last checked state; posts have a deadline; all recovers."""
    url = own_postgres.create_database("hung")
    migrate(url)
    async with (
        _serving(tmp_path, url, redis_url) as (process, http),
        Api(process.url, "owner") as api,
    ):
        await _wait_health(process, http, 200, "postgres", "ok")
        await api.create_project("p")
        await api.post("p", "before", "c1")
        path = "/v1/projects/p/chat/messages"
        with hanging(own_postgres):
            await _wait_health(process, http, 503, "postgres", "Postgres")
            # The client times out after 10 s, so every post must be answered before that.
            posted = await asyncio.gather(
                *(api.request("POST", path.rstrip("?"), body) for path, body in _POSTS.items()),
                *(api.request("POST", path, _during(name)) for name in ("c2", "c3")),
            )
            for each in posted:
                assert (each.status_code, each.json()["code"]) == (503, "STORE_UNAVAILABLE")
        await _wait_health(process, http, 200, "postgres", "ok")
        for name in ("c2", "c3"):
            await api.post("p", "during", name)
        await api.post("p", "after", "c4")
        rows = [msgspec.json.decode(row.data) for row in await api.log("p")]
        texts = [row["content"]["text"] for row in rows]
        assert [text for text in texts if text != "x"].count("during") == 2
        assert {"before", "after"} <= set(texts)


async def test_the_process_exits_when_its_committer_fails(
    start_service: StartService,
) -> None:
    """§4: waiting posts get 503 at once; exit status 3 makes a supervisor start a new process."""
    process = await start_service({"SEQSTREAM_FAULT": "fail-before-publish:1"})
    async with Api(process.url, "owner") as api:
        await api.create_project("p")
        assert await _status(api, "/v1/projects/p/chat/messages") == 503
    assert await process.wait_end() == 3
    assert "a part of the event log ended" in process.log_path.read_text()


def _during(client_msg_id: str) -> dict[str, str]:
    return {"message": "during", "client_msg_id": client_msg_id}
