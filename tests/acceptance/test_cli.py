"""docs/protocol.md §7: the command `seqstream`: send, tail, token, migrate, and bad settings."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner, Result

from service.operate.commands import main
from service.operate.embedded import PostgresServer
from tests.acceptance.conftest import Project, Services
from tests.support.processes import ROOT, run_cli, service_environment
from tests.support.raw_stream import raw_request
from tests.support.signing import HMAC_SECRET, TOKEN_SECRET, token

_CLI = (sys.executable, "-m", "service")


def _environment(services: Services) -> dict[str, str]:
    return service_environment(services.database_url, services.redis.url)


def _run(arguments: list[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*_CLI, *arguments], capture_output=True, text=True, timeout=60, cwd=ROOT,
        env=dict(environment), stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip


async def test_send_appends_and_prints_the_seq(services: Services, project: Project) -> None:
    """§7: `send PROJECT TEXT` prints `seq <n>`."""
    command = ["send", project.id, "from the terminal", "--user", "owner"]
    done = await asyncio.to_thread(run_cli, command, _environment(services))
    assert done.stdout == "seq 1\n"
    assert [row.text for row in await project.api.log(project.id)] == ["from the terminal"]


async def test_a_sent_message_reaches_open_streams(services: Services, project: Project) -> None:
    """§7: `send` is a separate process with the same guarantees."""
    async with raw_request(services.a.port, project.stream()) as response:
        await response.wait_for("stream.live")
        command = ["send", project.id, "hello", "--user", "owner"]
        await asyncio.to_thread(run_cli, command, _environment(services))
        await response.wait_for("message.new")


async def test_sending_to_an_unknown_project_fails_with_one_line(services: Services) -> None:
    """An expected failure prints one line, without a stack trace."""
    command = ["send", "no-such-project", "x", "--user", "owner"]
    done = await asyncio.to_thread(_run, command, _environment(services))
    assert done.returncode == 1
    assert len(done.stderr.strip().splitlines()) == 1
    assert "no such project" in done.stderr


async def test_tail_follows_a_project(services: Services, project: Project) -> None:
    """§7: `tail PROJECT` prints new messages until it is interrupted."""
    await project.fill(2)
    process = await asyncio.create_subprocess_exec(
        *_CLI, "tail", project.id, "--after", "1", env=_environment(services), cwd=ROOT,
        stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            first = await process.stdout.readline()
            await project.fill(3)
            second = await process.stdout.readline()
        rows = await project.api.log(project.id)
        assert first == b"2-0 message.new " + rows[1].data + b"\n"
        assert second == b"3-0 message.new " + rows[2].data + b"\n"
    finally:
        process.terminate()
        await process.wait()


def _remote(services: Services, user: str = "owner") -> dict[str, str]:
    """Return an environment that has an address and a token, and no server's address."""
    return {
        "PATH": "",
        "SEQSTREAM_URL": services.a.url,
        "SEQSTREAM_TOKEN": token(user, scope="read write"),
    }


async def _invoke(words: list[str], environment: dict[str, str]) -> Result:
    """Run a command in this process: a second one takes a second to start."""
    # In a thread, because a command has an event loop of its own.
    return await asyncio.to_thread(CliRunner().invoke, main, words, env=environment)


async def test_send_works_over_http_with_a_token(services: Services, project: Project) -> None:
    """§7: as the token's user, and with the id that makes a repeat harmless."""
    command = ["send", project.id, "over http", "--client-msg-id", "c1"]
    done = await asyncio.to_thread(run_cli, command, _remote(services))
    assert done.stdout == "seq 1\n"
    assert (await _invoke(command, _remote(services))).stdout == "seq 1\n"
    (row,) = await project.api.log(project.id)
    assert (row.text, row.user_id) == ("over http", "owner")


async def test_a_token_may_come_from_a_file(
    services: Services, project: Project, tmp_path: Path
) -> None:
    """`--token-file`: its white space does not count, and it wins over the variable."""
    path = tmp_path / "token"
    path.write_text(f"\n{token('owner', scope='read write')}\n")
    command = ["send", project.id, "x", "--url", services.a.url, "--token-file", str(path)]
    done = await _invoke(command, {"SEQSTREAM_TOKEN": "another"})
    assert (done.exit_code, done.stdout) == (0, "seq 1\n"), done.stderr


async def test_tail_works_over_http_with_a_token(services: Services, project: Project) -> None:
    """§7: the same lines as from the database."""
    await project.fill(2)
    rows = await project.api.log(project.id)
    async with _tail(_remote(services), project.id, "--after", "1") as lines:
        assert await lines.readline() == b"2-0 message.new " + rows[1].data + b"\n"
        await project.fill(3)
        rows = await project.api.log(project.id)
        assert await lines.readline() == b"3-0 message.new " + rows[2].data + b"\n"


@contextlib.asynccontextmanager
async def _tail(environment: dict[str, str], *words: str) -> AsyncIterator[asyncio.StreamReader]:
    process = await asyncio.create_subprocess_exec(
        *_CLI, "tail", *words, env=environment, cwd=ROOT,
        stdout=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        async with asyncio.timeout(30):
            yield process.stdout
    finally:
        process.terminate()
        await process.wait()


async def test_a_refused_caller_gets_one_line(services: Services, project: Project) -> None:
    """A stranger's token: no stack trace, and nothing of the token."""
    done = await _invoke(["tail", project.id], _remote(services, "stranger"))
    assert done.exit_code == 1
    (line,) = done.stderr.strip().splitlines()
    assert line == "error: 403 UNAUTHORIZED_PROJECT_ACCESS: Project access denied"


async def test_a_printed_token_opens_the_projects_stream(
    services: Services, project: Project
) -> None:
    """§7: `token PROJECT --user` prints a stream token."""
    command = ["token", project.id, "--user", "owner"]
    printed = await asyncio.to_thread(run_cli, command, {
        "PATH": "", "SEQSTREAM_TOKEN_SECRETS": TOKEN_SECRET,
    })  # fmt: skip
    target = f"/v1/projects/{project.id}/chat/stream?token={printed.stdout.strip()}"
    async with raw_request(services.a.port, target) as response:
        await response.wait_for("stream.live")


async def test_a_minted_token_opens_only_its_projects_stream(
    services: Services, project: Project
) -> None:
    """§3: `POST …/stream-tokens` returns 201 `{token, expiresAt}`."""
    path = f"/v1/projects/{project.id}/stream-tokens"
    response = await project.api.request("POST", path, {"ttlSeconds": 60})
    assert (response.status_code, set(response.json())) == (201, {"token", "expiresAt"})
    query = f"token={response.json()['token']}"
    async with raw_request(
        services.b.port, f"/v1/projects/{project.id}/chat/stream?{query}"
    ) as stream:
        await stream.wait_for("stream.live")
    async with raw_request(services.b.port, f"/v1/projects/deep/chat/stream?{query}") as stream:
        assert stream.status == 403


@pytest.mark.parametrize("ttl", [0, 86_401, "x"])
async def test_a_token_lives_at_most_a_day(project: Project, ttl: object) -> None:
    """§3: `ttlSeconds` is an integer from 1 to 86400, else 400."""
    path = f"/v1/projects/{project.id}/stream-tokens"
    response = await project.api.request("POST", path, {"ttlSeconds": ttl})
    details = msgspec.json.decode(response.content)["details"]
    assert (response.status_code, details[0]["field"]) == (400, "ttlSeconds")


async def test_migrate_twice_is_harmless(postgres: PostgresServer) -> None:
    """§7: the second `migrate` reports that the schema is up to date."""
    url = postgres.create_database("migrated_twice")
    environment = {"PATH": "", "DATABASE_URL": url}
    first = await asyncio.to_thread(run_cli, ["migrate"], environment)
    second = await asyncio.to_thread(run_cli, ["migrate"], environment)
    assert first.stdout.startswith("applied 0001_log.sql\n")
    assert second.stdout == "the schema is up to date\n"


_GOOD = {
    "PATH": "",
    "DATABASE_URL": "postgresql://127.0.0.1:1/x",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "SEQSTREAM_HMAC_SECRETS": HMAC_SECRET,
    "SEQSTREAM_TOKEN_SECRETS": TOKEN_SECRET,
}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", ""),
        ("REDIS_URL", "http://x"),
        ("SEQSTREAM_HMAC_SECRETS", "hush-hush"),
        ("SEQSTREAM_HEARTBEAT_SECONDS", "soon"),
        ("SEQSTREAM_ENVIRON_FD", "stdin"),
        ("SEQSTREAM_ENVIRON_FD", "987"),
        ("SEQSTREAM_ENVIRON_FD", "-1"),
        ("SEQSTREAM_ENVIRON_FD", "9" * 30),
    ],
)
async def test_a_bad_setting_prevents_the_start_with_one_line(variable: str, value: str) -> None:
    """§7: the process exits with status 2 and one line that names the setting."""
    done = await asyncio.to_thread(_run, ["serve", "--port", "0"], {**_GOOD, variable: value})
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"{variable}: ")
    assert value not in line or value in ("", "soon")
