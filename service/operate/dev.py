"""`seqstream dev`: the whole system on one machine, without anything installed.

Starts Postgres, Redis, the service and a worker as child processes, creates a demo project, and
prints the commands to try. Stops them all when the service or the worker ends, or at Ctrl-C. Only
the service listens on a port: other users of the machine cannot reach the servers or the data.
Not for production.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from types import FrameType

import httpx
from rich.console import Console

from service.access.identity import Scope
from service.access.signatures import sign_request
from service.access.tokens import mint_token
from service.operate import private_environ, private_files
from service.operate.embedded import EmbeddedError, PostgresServer, RedisServer

PROJECT = "demo"
USER = "alice"

_TOKEN_TTL_S = 30 * 24 * 3600
_READY_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 12.0
_SECRETS = ("SEQSTREAM_HMAC_SECRETS", "SEQSTREAM_TOKEN_SECRETS")


def run(data_dir: Path, *, port: int, out: Console) -> int:
    """Run until interrupted or a process ends; return the exit status."""
    stop = _Stop()
    try:
        data_dir = _own(data_dir.resolve())
        with contextlib.ExitStack() as stack:
            out.print("starting Postgres and Redis …")
            postgres = stack.enter_context(
                PostgresServer(data_dir / "postgres", on_socket=True, ends_with_parent=True)
            )
            redis = stack.enter_context(
                RedisServer(data_dir / "redis", on_socket=True, ends_with_parent=True)
            )
            environ = _environ(data_dir, postgres.url, redis.url)
            _command(_without_secrets(environ), "migrate")
            children = [
                stack.enter_context(_child(environ, "serve", "--port", str(port))),
                stack.enter_context(_child(_without_secrets(environ), "worker")),
            ]
            url = f"http://127.0.0.1:{port}"
            if not _await_ready(url, children, stop):
                return 0 if stop.asked else 1
            _welcome(out, url, environ, postgres, redis)
            while not stop.asked:
                if any(child.poll() is not None for child in children):
                    out.print("a process ended; stopping the others")
                    return 1
                time.sleep(0.2)
            out.print("stopping …")
            return 0
    except (EmbeddedError, OSError) as error:
        out.print(f"error: {error}", markup=False)
        return 1
    except subprocess.CalledProcessError:
        # The command has printed its error.
        return 1


def _own(data_dir: Path) -> Path:
    """Create the data folder and close it to other users.

    Raises:
        EmbeddedError: it belongs to another user.
    """
    if data_dir.exists() and data_dir.stat().st_uid != os.geteuid():
        raise EmbeddedError(f"{data_dir} belongs to another user: name a folder of yours (--data)")
    private_files.make_private(data_dir)
    return data_dir


class _Stop:
    """Records SIGINT or SIGTERM. The children are in other sessions: `_child` ends them."""

    def __init__(self) -> None:
        self.asked = False
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._ask)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        self.asked = True


def _environ(data_dir: Path, database_url: str, redis_url: str) -> dict[str, str]:
    environ = dict(os.environ)
    environ.setdefault("SEQSTREAM_LOG_FORMAT", "console")
    environ.setdefault("SEQSTREAM_LOG_LEVEL", "warning")
    for name in _SECRETS:
        # Kept in the data folder, so that tokens stay valid after a restart.
        environ.setdefault(name, private_files.kept_secret(data_dir / f"{name.lower()}.txt"))
    environ["DATABASE_URL"] = database_url
    environ["REDIS_URL"] = redis_url
    return environ


def _without_secrets(environ: dict[str, str]) -> dict[str, str]:
    """Return the environment for a process that verifies no caller."""
    return {name: value for name, value in environ.items() if name not in _SECRETS}


def _command(environ: dict[str, str], *words: str) -> None:
    subprocess.run([*_words(), *words], env=environ, check=True)


@contextlib.contextmanager
def _child(environ: dict[str, str], *words: str) -> Iterator[subprocess.Popen[bytes]]:
    # Its own session: Ctrl-C reaches only this process, which ends the children in order.
    # Builds run below the worker, as this user: no child's initial environment has a secret.
    with private_environ.handed(environ) as (shown, descriptors):
        child = subprocess.Popen(
            [*_words(), *words],
            env=shown, pass_fds=descriptors, start_new_session=True,
        )  # fmt: skip
    try:
        yield child
    finally:
        child.terminate()
        try:
            child.wait(_STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _words() -> list[str]:
    return [sys.executable, "-m", "service", "--parent", str(os.getpid())]


def _await_ready(url: str, children: list[subprocess.Popen[bytes]], stop: _Stop) -> bool:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while time.monotonic() < deadline and not stop.asked:
        if any(child.poll() is not None for child in children):
            return False
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/health/ready", timeout=2, trust_env=False).status_code == 200:
                return True
        time.sleep(0.1)
    return False


def _create_project(url: str, hmac_secret: str) -> None:
    """Create the demo project; no error when it exists."""
    body = f'{{"id":"{PROJECT}","name":"Demo"}}'.encode()
    path = "/v1/projects"
    signed = sign_request(
        hmac_secret,
        now_s=time.time(), method="POST", raw_target=path.encode(), user_id=USER, body=body,
    )  # fmt: skip
    headers = {**signed, "Content-Type": "application/json"}
    httpx.post(
        f"{url}{path}", content=body, headers=headers, timeout=10, trust_env=False
    ).raise_for_status()


def _mint_token(token_secret: str, *, scopes: Collection[Scope], project: str | None) -> str:
    return mint_token(
        token_secret,
        user_id=USER,
        expires_at_s=time.time() + _TOKEN_TTL_S,
        scopes=scopes,
        projects=None if project is None else [project],
    )


def _welcome(
    out: Console,
    url: str,
    environ: dict[str, str],
    postgres: PostgresServer,
    redis: RedisServer,
) -> None:
    """Create the demo project, and print the commands to try."""
    _create_project(url, environ["SEQSTREAM_HMAC_SECRETS"].split(",")[0])
    secret = environ["SEQSTREAM_TOKEN_SECRETS"].split(",")[0]
    token = _mint_token(secret, scopes=["read", "write"], project=PROJECT)
    operators = _mint_token(secret, scopes=["read", "admin"], project=None)
    chat = f"{url}/v1/projects/{PROJECT}/chat"
    message = '{"message": "hello", "client_msg_id": "first"}'
    lines = [
        "",
        f"seqstream is running on {url}",
        f"project {PROJECT}, user {USER}, a token for both (30 days):",
        "",
        f"export TOKEN={token}",
        "",
        "follow the project, from the beginning:",
        f'curl -N -H "Authorization: Bearer $TOKEN" "{chat}/stream?from_seq=0"',
        "",
        "post a message (a repeat of the same client_msg_id adds nothing):",
        f'curl -H "Authorization: Bearer $TOKEN" -H "Content-Type: application/json" '
        f"-d '{message}' {chat}/messages",
        "",
        f"chat page:       {url}/chat#{token}",
        f"console:         {url}/console#{operators}",
        f"API page:        {url}/schema",
        f"DATABASE_URL     {environ['DATABASE_URL']}",
        f"REDIS_URL        {environ['REDIS_URL']}",
        "",
        "to look inside, as this user:",
        f'{_short(postgres.psql_path)} "{postgres.url}"',
        f"{_short(redis.cli)} -s {redis.socket_path}",
        "",
        "Ctrl-C ends everything; the data stays.",
    ]
    for line in lines:
        out.print(line, markup=False)


def _short(path: Path) -> str:
    """Return the path relative to the current folder if it is inside."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)
