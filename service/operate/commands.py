"""The command `seqstream`: servers and their upkeep. What talks to them is in `client_commands.py`.

Each subcommand reads its settings, runs one thing, prints the result. The work itself is elsewhere:
no subcommand holds logic of its own.
"""

from __future__ import annotations

import asyncio
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from service import __version__
from service.operate import client_commands, load_command, private_environ
from service.operate.command_frame import out, plain_errors, settings_for
from service.operate.parent import end_with
from service.settings import MIGRATE_NEEDS, SERVICE_NEEDS, SERVICE_SECRETS, WORKER_NEEDS
from streams.model.ids import check_project_id


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
    settings = settings_for(SERVICE_NEEDS)
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

    sys.exit(dev_servers.run(data, port=port, out=out))


@main.command()
@plain_errors
def migrate() -> None:
    """Bring the database's schema up to date."""
    settings = settings_for(MIGRATE_NEEDS)

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
        out.print(f"applied {name}")
    if not applied:
        out.print("the schema is up to date")


@main.command()
@click.option("--concurrency", type=click.IntRange(1, 1000), help="most builds at once")
@click.option(
    "--grace", type=click.FloatRange(0, 86_400), help="seconds for running builds at SIGTERM"
)
@plain_errors
def worker(concurrency: int | None, grace: float | None) -> None:
    """Run builds until interrupted."""
    # First: builds run as children of this process, as its user.
    private_environ.hide(without=SERVICE_SECRETS)
    settings = settings_for(WORKER_NEEDS)
    from service.worker import worker as build_worker

    asyncio.run(
        build_worker.run(
            settings,
            concurrency=concurrency or settings.worker_concurrency,
            grace_s=settings.worker_grace_s if grace is None else grace,
        )
    )


@main.command()
@click.option("--verify", multiple=True, metavar="PROJECT", help="compare its stream with the log")
@plain_errors
def doctor(verify: Sequence[str]) -> None:
    """Check the servers, their versions and settings; exit 1 when a check fails."""
    settings = settings_for(WORKER_NEEDS)
    from service.operate import doctor as checks

    findings = asyncio.run(
        checks.examine(settings, [check_project_id(project) for project in verify])
    )
    out.print(checks.table(findings))
    sys.exit(0 if all(finding.is_good for finding in findings) else 1)


for _command in (
    client_commands.send,
    client_commands.tail,
    client_commands.token,
    load_command.load,
):
    main.add_command(_command)
