"""The embedded servers: real Postgres and Redis that survive what the fault tests do to them."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from service.embedded import EmbeddedError, PostgresServer, RedisServer, free_port
from tests.support.processes import postgres_folder


@pytest.fixture(scope="module")
def own_postgres() -> Iterator[PostgresServer]:
    """A Postgres that tests may kill."""
    with (
        postgres_folder() as folder,
        PostgresServer(folder / "data", fsync=False, settings={"work_mem": "3MB"}) as server,
    ):
        yield server


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis that tests may kill."""
    with RedisServer(tmp_path / "redis") as server:
        yield server


def _ping(server: RedisServer) -> bool:
    with redis.Redis.from_url(server.url) as client:
        return bool(client.ping())


def test_postgres_answers_and_takes_settings(own_postgres: PostgresServer) -> None:
    """Settings reach the server as they were given."""
    assert own_postgres.psql("SHOW work_mem") == "3MB\n"


def test_a_database_is_a_copy_of_its_template(own_postgres: PostgresServer) -> None:
    """Tests get their schema by copying."""
    own_postgres.create_database("first")
    own_postgres.psql("CREATE TABLE t (n int)", database="first")
    url = own_postgres.create_database("second", template="first")
    assert url == f"postgresql://postgres@127.0.0.1:{own_postgres.port}/second"
    assert own_postgres.psql("SELECT count(*) FROM t", database="second") == "0\n"


def test_a_bad_sql_command_is_an_error(own_postgres: PostgresServer) -> None:
    """psql's own words are in it."""
    with pytest.raises(EmbeddedError, match="no_such_table"):
        own_postgres.psql("SELECT 1 FROM no_such_table")


def test_postgres_keeps_data_and_address_when_killed(own_postgres: PostgresServer) -> None:
    """SIGKILL loses nothing that was committed, and clients find it where it was."""
    own_postgres.psql("CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")
    port = own_postgres.port
    own_postgres.kill()
    assert not own_postgres.is_running()
    own_postgres.start()
    assert own_postgres.port == port
    assert own_postgres.psql("SELECT n FROM kept") == "7\n"


def test_a_stopped_postgres_can_be_asked_to_end(own_postgres: PostgresServer) -> None:
    """SIGSTOP does not make `stop()` wait for ever."""
    os.kill(own_postgres.pid, signal.SIGSTOP)
    own_postgres.stop()
    assert not own_postgres.is_running()
    own_postgres.start()


def test_redis_comes_back_empty_where_it_was(own_redis: RedisServer) -> None:
    """Nothing is kept on disk unless asked for."""
    with redis.Redis.from_url(own_redis.url) as client:
        client.set("key", "value")
    port = own_redis.port
    own_redis.kill()
    own_redis.start()
    assert own_redis.port == port
    with redis.Redis.from_url(own_redis.url) as client:
        assert client.dbsize() == 0


def test_redis_takes_arguments(tmp_path: Path) -> None:
    """They reach redis-server as they were given."""
    with (
        RedisServer(tmp_path / "redis", arguments=["--maxmemory", "7mb"]) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        assert client.config_get("maxmemory") == {"maxmemory": str(7 * 1024 * 1024)}


def test_a_second_start_has_the_same_address(tmp_path: Path) -> None:
    """`seqstream dev` is where it was yesterday."""
    with RedisServer(tmp_path / "redis") as first:
        port = first.port
    with RedisServer(tmp_path / "redis") as second:
        assert second.port == port
        assert _ping(second)


def test_a_taken_port_is_left_alone(tmp_path: Path) -> None:
    """When someone else has the remembered port, another one is taken."""
    with RedisServer(tmp_path / "redis") as first:
        port = first.port
    with socket.create_server(("127.0.0.1", port)), RedisServer(tmp_path / "redis") as second:
        assert second.port != port
        assert _ping(second)


def test_a_bad_argument_is_an_error_with_the_log(tmp_path: Path) -> None:
    """The server's own words say what is wrong."""
    with pytest.raises(EmbeddedError, match="no-such-setting"):
        RedisServer(tmp_path / "redis", arguments=["--no-such-setting", "1"]).start()


def test_no_process_id_before_the_start(tmp_path: Path) -> None:
    """A server that is not running has none."""
    server = RedisServer(tmp_path / "redis", port=free_port())
    assert not server.is_running()
    with pytest.raises(EmbeddedError, match="not running"):
        _ = server.pid
