"""The subcommand `seqstream load`: options to a plan, figures to the terminal.

The run itself is in `load.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import msgspec
from rich.live import Live

from service.operate import load_table
from service.operate.client_commands import (
    remote_of,
    token_file_option,
    token_option,
    url_option,
)
from service.operate.command_frame import err, out, plain_errors
from service.operate.load import LoadPlan, LoadRun
from service.operate.load_figures import LoadCounters

_MAX_POSTS = 10_000_000


@click.command()
@click.argument("projects", metavar="PROJECT...", nargs=-1, required=True)
@click.option(
    "--connections", default=50, show_default=True, type=click.IntRange(0, 10_000),
    help="streams to open, over all projects",
)  # fmt: skip
@click.option(
    "--rate", default=20.0, show_default=True, type=click.FloatRange(0.01, 100_000),
    help="posts a second, over all projects",
)  # fmt: skip
@click.option(
    "--seconds", default=30.0, show_default=True, type=click.FloatRange(0.1, 86_400),
    help="how long to post",
)  # fmt: skip
@click.option(
    "--senders", default=8, show_default=True, type=click.IntRange(1, 1000),
    help="posts under way at once, at most",
)  # fmt: skip
@click.option(
    "--text-bytes", default=200, show_default=True, type=click.IntRange(80, 65_536),
    help="length of a text",
)  # fmt: skip
@click.option(
    "--patience", default=30.0, show_default=True, type=click.FloatRange(1, 3600),
    help="seconds for the streams to open, and for the last messages to arrive",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="no table; the report as JSON")
@url_option
@token_option
@token_file_option
@plain_errors
def load(
    projects: tuple[str, ...],
    connections: int,
    rate: float,
    seconds: float,
    senders: int,
    text_bytes: int,
    patience: float,
    as_json: bool,
    url: str | None,
    token: str | None,
    token_file: Path | None,
) -> None:
    """Load a service: streams and posts in PROJECT..., and whether all arrived as it should.

    Writes messages into the projects: use projects made for it. The token needs the scopes read and
    write. The posts are an open loop: latencies begin when a post was due, and one that begins late
    is counted, not left out. At the end every stream is compared with the history: lost, repeated,
    reordered, changed. Exits 1 when one is not clean or a post failed.

    A service limits the streams and posts of a user (10 and 50 a second in a project): raise
    SEQSTREAM_MAX_STREAMS_PER_USER and SEQSTREAM_POSTS_PER_SECOND there, or give a file with the
    tokens of several users, one on a line; they take turns.
    """
    remote = remote_of(url, token, token_file)
    if remote is None:
        raise click.UsageError("no address: give --url or SEQSTREAM_URL")
    remote.client()
    plan = LoadPlan(
        url=remote.url,
        tokens=remote.tokens,
        projects=tuple(dict.fromkeys(projects)),
        connections=connections,
        rate=rate,
        seconds=seconds,
        senders=senders,
        text_bytes=text_bytes,
        patience_s=patience,
    )
    # "nan" is a number to click.
    if not 1 <= rate * seconds <= _MAX_POSTS:
        raise click.UsageError(f"rate times seconds is 1 to {_MAX_POSTS} posts")
    run = LoadRun(plan)
    with _live_table(plan, shown=not as_json) as on_tick:
        report = asyncio.run(run.run(on_tick))
    if as_json:
        click.echo(msgspec.json.encode(report).decode())
    else:
        out.print(load_table.summary(report))
    sys.exit(0 if report.clean else 1)


@contextlib.contextmanager
def _live_table(plan: LoadPlan, *, shown: bool) -> Iterator[Callable[[LoadCounters], None]]:
    """Show the counters while a run goes on, on a terminal only."""
    if not shown or not err.is_terminal:
        yield lambda counters: None
        return
    table = load_table.LoadTable(connections=plan.connections, posts=plan.posts)
    with Live(console=err, auto_refresh=False, transient=True) as live:

        def on_tick(counters: LoadCounters) -> None:
            live.update(table.render(counters), refresh=True)

        yield on_tick
