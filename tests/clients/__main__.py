"""`python -m tests.clients`: every client through every scenario, with a table at the end."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.markup import escape

from tests.clients import catalogue, scenarios
from tests.clients.catalogue import Catalogue, Client
from tests.clients.cells import Cell, State
from tests.clients.installing import BUILD, NotInstalled, install
from tests.clients.nginx_front import DOCUMENT
from tests.clients.other_target import other_target
from tests.clients.runner import Job, run_all
from tests.clients.scenarios import Scenario
from tests.clients.seqstream_target import seqstream
from tests.clients.table import replace_table, terminal_table, written_table
from tests.clients.target import Target

_WIDTH_IN_FILES = 200


@click.command()
@click.option("--client", "client_names", multiple=True, help="Only clients with this in the name.")
@click.option(
    "--scenario", "scenario_names", multiple=True, help="Only this scenario.",
    type=click.Choice([scenario.name for scenario in scenarios.ALL]),
)  # fmt: skip
@click.option(
    "--target", "target_file", type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Another service, described by a TOML file; without it this project's.",
)  # fmt: skip
@click.option("--at-once", default=4, show_default=True, help="Programs that run at a time.")
@click.option("--write-docs", is_flag=True, help="Write the table into docs/clients.md.")
@click.option("--list", "only_list", is_flag=True, help="List clients and scenarios, and exit.")
def main(
    client_names: tuple[str, ...],
    scenario_names: tuple[str, ...],
    target_file: Path | None,
    at_once: int,
    write_docs: bool,
    only_list: bool,
) -> None:
    """Run client libraries against a service and judge what each surfaced."""
    whole = catalogue.load()
    clients = [
        client for client in whole.client
        if not client_names or any(name in client.title for name in client_names)
    ]  # fmt: skip
    chosen = [each for each in scenarios.ALL if not scenario_names or each.name in scenario_names]
    if only_list:
        for name in [*(each.title for each in clients), *(each.name for each in chosen)]:
            click.echo(name)
        return
    if write_docs and (client_names or scenario_names or target_file):
        raise click.UsageError("--write-docs takes the whole run: no filter, no other target")
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH_IN_FILES
    began_s = time.monotonic()
    cells = asyncio.run(_run(whole, clients, chosen, target_file, at_once, console))
    console.print(terminal_table(clients, chosen, cells))
    _print_counts(cells, time.monotonic() - began_s, console)
    if write_docs:
        if any(cell.fails_the_run or cell.state is State.NOT_RUN for cell in cells):
            console.print("[red]the table is not written: some cells failed or were not run[/]")
            sys.exit(1)
        document = DOCUMENT.read_text(encoding="utf-8")
        written = replace_table(document, written_table(clients, chosen, cells))
        DOCUMENT.write_text(written, encoding="utf-8")
    sys.exit(1 if not cells or any(cell.fails_the_run for cell in cells) else 0)


async def _run(
    whole: Catalogue,
    clients: Sequence[Client],
    chosen: Sequence[Scenario],
    target_file: Path | None,
    at_once: int,
    console: Console,
) -> list[Cell]:
    missing = await _install(whole, clients, console)
    not_run = [
        Cell(client.title, scenario.name, State.NOT_RUN, details=(missing[client.title],))
        for client in clients if client.title in missing
        for scenario in chosen
    ]  # fmt: skip
    jobs = [
        Job(client, scenario)
        for scenario in chosen for client in clients if client.title not in missing
    ]  # fmt: skip

    def done(cell: Cell) -> None:
        console.print(
            f"{cell.state.value:8} {cell.scenario:14} {cell.client} {cell.took_s:.1f} s",
            style="bold red" if cell.fails_the_run else None, highlight=False,
        )  # fmt: skip
        if cell.fails_the_run:
            for detail in cell.details:
                console.print(f"  {escape(detail)}", highlight=False)

    with tempfile.TemporaryDirectory(prefix="seqstream-clients-") as name:
        async with _target(target_file, Path(name)) as target:
            cells = await run_all(target, jobs, Path(name), at_once=at_once, done=done)
    BUILD.mkdir(exist_ok=True)
    results = [*cells, *not_run]
    (BUILD / "results.json").write_bytes(
        msgspec.json.format(msgspec.json.encode(results), indent=1)
    )
    return results


async def _install(whole: Catalogue, clients: Sequence[Client], console: Console) -> dict[str, str]:
    """Install what the clients need; return those that cannot run here, and why."""
    failed: dict[str, str] = {}
    for build in whole.build:
        users = [client for client in clients if client.build == build.name]
        if not users:
            continue
        console.print(f"installing {build.name} …")
        try:
            await install(build)
        except NotInstalled as error:
            console.print(f"[yellow]not installed: {escape(str(error))}[/]", highlight=False)
            failed |= {client.title: f"not installed: {build.name}" for client in users}
    for client in clients:
        absent = [name for name in client.needs if shutil.which(name) is None]
        if absent:
            failed[client.title] = f"needs {', '.join(absent)}"
    return failed


@contextlib.asynccontextmanager
async def _target(file: Path | None, folder: Path) -> AsyncIterator[Target]:
    if file is not None:
        yield other_target(file)
        return
    async with seqstream(folder) as target:
        yield target


def _print_counts(cells: Sequence[Cell], took_s: float, console: Console) -> None:
    counts = {state: sum(cell.state is state for cell in cells) for state in State}
    said = ", ".join(f"{count} {state.value}" for state, count in counts.items() if count)
    console.print(f"{said}; {took_s:.0f} s", highlight=False)


if __name__ == "__main__":
    main()
