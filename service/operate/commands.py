"""The command `seqstream`: each subcommand reads its settings, runs one thing, prints the result.

The work itself is elsewhere: no subcommand holds logic of its own.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast, get_args

import click
from rich.console import Console

from service import __version__
from service.access.identity import Scope
from service.access.tokens import mint_token
from service.operate import private_environ
from service.operate.parent import end_with
from service.settings import (
    MIGRATE_NEEDS,
    SERVICE_NEEDS,
    SERVICE_SECRETS,
    WORKER_NEEDS,
    Settings,
    SettingsError,
    load,
)
from service.telemetry import logs
from streams.eventlog import EventLog
from streams.model.errors import StreamsError
from streams.model.events import NewMessage
from streams.model.ids import check_project_id, check_user_id

_out = Console(highlight=False, soft_wrap=True)
_err = Console(stderr=True, highlight=False, soft_wrap=True)

P = ParamSpec("P")
R = TypeVar("R")


def _settings(needs: Sequence[str]) -> Settings:
    """Load the settings and configure logging; exit 2 when one of `needs` is missing or wrong."""
    try:
        private_environ.take()
        settings = load(os.environ, needs=needs)
    except SettingsError as error:
        # One line that names the variable; nothing was started.
        _err.print(str(error), markup=False)
        sys.exit(2)
    logs.configure(settings.log_level, settings.log_format)
    return settings


def _plain_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Print an expected failure as one line, without a stack trace, and exit 1."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except StreamsError as error:
            _err.print(f"[red]error:[/red] {error}")
            sys.exit(1)

    return run


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
@click.option("--parent", type=int, hidden=True, help="end when this parent process ends")
def main(parent: int | None) -> None:
    """A durable, resumable event log per project, over Server-Sent Events."""
    if parent is not None:
        end_with(parent)


@main.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="address to listen on")
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(0, 65535),
    help="port to listen on; 0 picks a free one",
)
@click.option(
    "--workers",
    default=1,
    show_default=True,
    type=click.IntRange(1, 64),
    help="processes behind one port",
)
@click.option("--fd", type=int, hidden=True, help="descriptor of the supervisor's listening socket")
def serve(host: str, port: int, workers: int, fd: int | None) -> None:
    """Run the service."""
    if workers > 1:
        # First: builds may run as this user and read the environment of its processes.
        private_environ.hide(without=())
    settings = _settings(SERVICE_NEEDS)
    if workers > 1:
        from service.operate.supervisor import run_workers

        sys.exit(run_workers(host=host, port=port, workers=workers))
    from service.operate import serving

    listening = None if fd is None else socket.socket(fileno=fd)
    sys.exit(0 if serving.run(settings, host=host, port=port, listening=listening) else 3)


@main.command()
@click.option(
    "--data",
    default=".seqstream",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="folder for the servers' data",
)
@click.option(
    "--port",
    default=8000,
    show_default=True,
    type=click.IntRange(1, 65535),
    help="port of the service",
)
def dev(data: Path, port: int) -> None:
    """Run everything on this machine: Postgres, Redis, the service, a worker, a demo project."""
    from service.operate import dev as dev_servers

    sys.exit(dev_servers.run(data, port=port, out=_out))


@main.command()
@_plain_errors
def migrate() -> None:
    """Bring the database's schema up to date."""
    settings = _settings(MIGRATE_NEEDS)

    async def run() -> list[str]:
        from streams.log.database import Database
        from streams.log.migrations import migrate

        database = await Database.open(settings.database_url, size=1)
        try:
            return await migrate(database)
        finally:
            await database.close()

    applied = asyncio.run(run())
    for name in applied:
        _out.print(f"applied {name}")
    if not applied:
        _out.print("the schema is up to date")


@main.command()
@click.option("--concurrency", type=click.IntRange(1, 1000), help="most builds at once")
@click.option(
    "--grace", type=click.FloatRange(0, 86_400), help="seconds for running builds at SIGTERM"
)
@_plain_errors
def worker(concurrency: int | None, grace: float | None) -> None:
    """Run builds until interrupted."""
    # First: builds run as children of this process, as its user.
    private_environ.hide(without=SERVICE_SECRETS)
    settings = _settings(WORKER_NEEDS)
    from service.worker import worker as build_worker

    asyncio.run(
        build_worker.run(
            settings,
            concurrency=concurrency or settings.worker_concurrency,
            grace_s=settings.worker_grace_s if grace is None else grace,
        )
    )


@main.command()
@click.argument("project")
@click.argument("text")
@click.option("--user", required=True, help="id of the sender")
@click.option("--client-msg-id", help="makes a repeat harmless")
@_plain_errors
def send(project: str, text: str, user: str, client_msg_id: str | None) -> None:
    """Append a message to PROJECT directly, without the service and its access checks."""
    settings = _settings(WORKER_NEEDS)

    async def run() -> int:
        async with EventLog.open(settings.database_url, settings.redis_url) as log:
            message = NewMessage(user_id=user, text=text, client_msg_id=client_msg_id)
            return (await log.append(check_project_id(project), message)).seq

    _out.print(f"seq {asyncio.run(run())}")


@main.command()
@click.argument("project")
@click.option("--after", type=click.IntRange(0), help="start after this seq instead of at the head")
@_plain_errors
def tail(project: str, after: int | None) -> None:
    """Follow PROJECT on the terminal until interrupted."""
    settings = _settings(WORKER_NEEDS)

    async def run() -> None:
        async with EventLog.open(settings.database_url, settings.redis_url) as log:
            async for event in log.follow(check_project_id(project), after=after):
                _out.print(f"{event.id} {event.name} {event.data.decode()}", markup=False)

    try:
        asyncio.run(run())
    except KeyboardInterrupt:
        sys.exit(130)


@main.command()
@click.argument("project", required=False)
@click.option("--all-projects", is_flag=True, help="instead of PROJECT: limit it to none")
@click.option("--user", required=True, help="id of the token's user")
@click.option(
    "--scope",
    multiple=True,
    default=["read"],
    show_default=True,
    type=click.Choice(get_args(Scope)),
    help="may be repeated",
)
@click.option(
    "--ttl", default=3600, show_default=True, type=click.IntRange(1), help="lifetime, seconds"
)
@_plain_errors
def token(
    project: str | None, all_projects: bool, user: str, scope: Sequence[str], ttl: int
) -> None:
    """Print a token for USER in PROJECT."""
    if (project is None) is not all_projects:
        raise click.UsageError("give either PROJECT or --all-projects")
    settings = _settings(["SEQSTREAM_TOKEN_SECRETS"])
    check_user_id(user, "user")
    minted = mint_token(
        settings.token_secrets[0],
        user_id=user,
        expires_at_s=time.time() + ttl,
        scopes=cast("Any", frozenset(scope)),
        projects=None if project is None else [check_project_id(project, "project")],
    )
    click.echo(minted)


@main.command()
@click.option("--verify", multiple=True, metavar="PROJECT", help="compare its stream with the log")
@_plain_errors
def doctor(verify: Sequence[str]) -> None:
    """Check the servers, their versions and settings; exit 1 when a check fails."""
    settings = _settings(WORKER_NEEDS)
    from service.operate import doctor as checks

    findings = asyncio.run(
        checks.examine(settings, [check_project_id(project) for project in verify])
    )
    _out.print(checks.table(findings))
    sys.exit(0 if all(finding.is_good for finding in findings) else 1)
