"""The subcommands that send to a project, follow it, or mint a token for it.

`send` and `tail` have two ways: over HTTP with a token, as any client, when an address is given; or
with the database's address, as an operator, past the service and its checks. The work itself is in
`service/client` and in the library.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast, get_args

import click
import msgspec

from service.access.identity import Scope
from service.access.tokens import mint_token
from service.client import Client, Event, FollowObserver, Message
from service.operate.command_frame import err, harmless, out, plain_errors, settings_for
from service.settings import WORKER_NEEDS
from streams.eventlog import EventLog
from streams.model.events import NewMessage
from streams.model.ids import check_project_id, check_user_id

_MAX_TOKENS = 1000
_MAX_TOKEN_FILE_BYTES = 16 * 1024 * 1024
# Of one connection, or of the moment: without a place in the project's stream.
_PASSING = ("stream.", "typing.", "presence.")

url_option = click.option(
    "--url",
    envvar="SEQSTREAM_URL",
    show_envvar=True,
    help="address of the service, as https://host: talk to it over HTTP, with a token",
)
token_option = click.option(
    "--token",
    envvar="SEQSTREAM_TOKEN",
    show_envvar=True,
    help="the token; better in the variable or a file: other users see arguments",
)
token_file_option = click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, allow_dash=True, path_type=Path),
    help="file with the token (- is standard input)",
)


class Remote(NamedTuple):
    """A service that a command talks to over HTTP, and the tokens to do it with."""

    url: str
    tokens: tuple[str, ...]

    def client(self) -> Client:
        """Return a client with the first token."""
        try:
            return Client(self.url, self.tokens[0])
        except ValueError as error:
            raise click.BadParameter(str(error), param_hint="--url") from None


def remote_of(url: str | None, token: str | None, token_file: Path | None) -> Remote | None:
    """Return the service to talk to; None without an address."""
    if not url:
        return None
    if token_file is not None:
        # What names a file wins over a variable that is always set.
        with click.open_file(str(token_file), "r", encoding="utf-8") as file:
            words = file.read(_MAX_TOKEN_FILE_BYTES).split()
    else:
        words = [token] if token else []
    if not 1 <= len(words) <= _MAX_TOKENS:
        raise click.UsageError("no token: give SEQSTREAM_TOKEN or --token-file")
    return Remote(url, tuple(words))


@click.command()
@click.argument("project")
@click.argument("text")
@click.option("--user", help="id of the sender; only without an address: a token names its user")
@click.option("--client-msg-id", help="makes a repeat harmless")
@url_option
@token_option
@token_file_option
@plain_errors
def send(
    project: str,
    text: str,
    user: str | None,
    client_msg_id: str | None,
    url: str | None,
    token: str | None,
    token_file: Path | None,
) -> None:
    """Append a message to PROJECT and print its seq.

    With an address (--url or SEQSTREAM_URL): over HTTP, as the token's user. Without: directly into
    the database of DATABASE_URL as --user, without the service and its access checks.
    """
    remote = remote_of(url, token, token_file)

    async def over_http(remote: Remote) -> int:
        async with remote.client() as client:
            return (await client.send(project, text, client_msg_id=client_msg_id)).seq

    async def directly(user: str) -> int:
        settings = settings_for(WORKER_NEEDS)
        async with EventLog.open(settings.database_url, settings.redis_url) as log:
            message = NewMessage(user_id=user, text=text, client_msg_id=client_msg_id)
            return (await log.append(check_project_id(project), message)).seq

    if remote is not None:
        if user is not None:
            raise click.UsageError("--user is the token's over HTTP")
        seq = asyncio.run(over_http(remote))
    else:
        if user is None:
            raise click.UsageError("--user is needed without an address")
        seq = asyncio.run(directly(user))
    out.print(f"seq {seq}")


@click.command()
@click.argument("project")
@click.option("--after", type=click.IntRange(0), help="start after this seq instead of at the head")
@click.option("--json", "as_json", is_flag=True, help="one JSON object a line: id, event, data")
@url_option
@token_option
@token_file_option
@plain_errors
def tail(
    project: str,
    after: int | None,
    as_json: bool,
    url: str | None,
    token: str | None,
    token_file: Path | None,
) -> None:
    """Follow PROJECT on the terminal until interrupted: id, event and data on a line.

    With an address (--url or SEQSTREAM_URL): over HTTP, as the token's user, over any number of
    reconnects. Without: from the database of DATABASE_URL and Redis, without the service.
    """
    remote = remote_of(url, token, token_file)
    show = _show_json if as_json else _show

    async def over_http(remote: Remote) -> None:
        async with remote.client() as client:
            async for event in client.follow(project, after=after, observer=_Notes()):
                if event.name == "stream.reset":
                    said = harmless(event.json.decode(errors="replace"))
                    err.print(f"the stream was reset: {said}", markup=False)
                elif not event.name.startswith(_PASSING):
                    name = "message.new" if isinstance(event, Message) else event.name
                    show(_id_of(event), name, event.json)

    async def directly() -> None:
        settings = settings_for(WORKER_NEEDS)
        async with EventLog.open(settings.database_url, settings.redis_url) as log:
            async for event in log.follow(check_project_id(project), after=after):
                show(str(event.id), event.name, event.data)

    asyncio.run(directly() if remote is None else over_http(remote))


class _Notes(FollowObserver):
    """Says on standard error that the connection was lost: a tail that waits looks idle."""

    def interrupted(self, why: str, wait_s: float) -> None:
        err.print(f"interrupted: {harmless(why)}; again in {wait_s:.1f} s", markup=False)


class _HasEntryId(msgspec.Struct, rename="camel"):
    entry_id: str | None = None


def _id_of(event: Event) -> str:
    """Return the id of the event's entry in the project's stream, or `-`."""
    if event.seq is not None:
        return f"{event.seq}-0"
    return msgspec.json.decode(event.json, type=_HasEntryId).entry_id or "-"


def _show(entry_id: str, name: str, data: bytes) -> None:
    out.print(f"{entry_id} {name} {data.decode()}", markup=False)


def _show_json(entry_id: str, name: str, data: bytes) -> None:
    line = {"id": entry_id, "event": name, "data": msgspec.Raw(data)}
    click.echo(msgspec.json.encode(line).decode())


@click.command()
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
@plain_errors
def token(
    project: str | None, all_projects: bool, user: str, scope: Sequence[str], ttl: int
) -> None:
    """Print a token for USER in PROJECT."""
    if (project is None) is not all_projects:
        raise click.UsageError("give either PROJECT or --all-projects")
    settings = settings_for(["SEQSTREAM_TOKEN_SECRETS"])
    check_user_id(user, "user")
    minted = mint_token(
        settings.token_secrets[0],
        user_id=user,
        expires_at_s=time.time() + ttl,
        scopes=cast("Any", frozenset(scope)),
        projects=None if project is None else [check_project_id(project, "project")],
    )
    click.echo(minted)
