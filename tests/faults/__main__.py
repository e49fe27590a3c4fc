"""`python -m tests.faults`: every fault at full length, with progress, a table, and JSON."""

from __future__ import annotations

import asyncio
import math
import platform
import sys
import tempfile
import time
from pathlib import Path

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from service.operate.embedded import PostgresServer
from tests.faults.catalogue import ALL
from tests.faults.load import POSTS_PER_S_OF_A_WRITER, Size
from tests.faults.result import Result
from tests.faults.run import run_fault
from tests.faults.scenario import Fault
from tests.faults.world import SharedPostgres
from tests.support.processes import migrate

_WIDTH_IN_FILES = 260
_TEMPLATE = "seqstream_template"
_COLUMNS = (
    "fault", "clients", "posts/s", "acknowledged", "delivered", "reconnects",
    "longest silence s", "longest delay s", "lost", "repeated", "reordered", "other",
    "builds asked", "ended", "wrong",
    "answers asked", "complete", "stopped", "failed", "wrong", "",
)  # fmt: skip
_ANSWER_ENDS = ("answer", "answer_stopped", "answer_failed")


class Run(msgspec.Struct, frozen=True):
    """The JSON output: the results, and the run and machine that they are from."""

    seed: int
    began_at: float
    took_s: float
    machine: str
    python: str
    results: list[Result]
    skipped: dict[str, str]


@click.command()
@click.option("--only", default="", help="Run only faults whose name holds this text.")
@click.option("--seed", default=1, show_default=True, help="Seed of everything random.")
@click.option("--scale", default=1.0, show_default=True, help="Multiply every fault's length.")
@click.option("--clients", default=24, show_default=True, help="Steady clients.")
@click.option("--posts-per-s", default=200.0, show_default=True, help="All writers together.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Where to write JSON.")
@click.option("--list", "only_list", is_flag=True, help="List the faults and exit.")
def main(
    only: str,
    seed: int,
    scale: float,
    clients: int,
    posts_per_s: float,
    json_path: Path | None,
    only_list: bool,
) -> None:
    """Run faults on real processes and judge every client's history against the log."""
    faults = [fault for fault in ALL if only in fault.name]
    if only_list:
        for fault in faults:
            click.echo(fault.name)
        return
    size = Size(
        clients=clients,
        slow=2,
        stalled=2,
        writers=max(8, math.ceil(posts_per_s / POSTS_PER_S_OF_A_WRITER)),
        posts_per_s=posts_per_s,
        builds_per_s=1.0,
        answers_per_s=2.0,
    )
    console = Console()
    if not console.is_terminal:
        console.width = _WIDTH_IN_FILES
    run = asyncio.run(_run_all(faults, size, seed, scale, console))
    console.print(_table(run.results))
    for name, reason in run.skipped.items():
        console.print(f"skipped: {name}: {reason}", highlight=False)
    path = json_path or Path(".seqstream") / f"faults-seed{seed}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(run), indent=2))
    console.print(f"{path}, {run.took_s:.0f} s, seed {seed}")
    sys.exit(0 if run.results and all(result.ok for result in run.results) else 1)


async def _run_all(
    faults: list[Fault], size: Size, seed: int, scale: float, console: Console
) -> Run:
    began_at, began_s = time.time(), time.monotonic()
    results: list[Result] = []
    skipped: dict[str, str] = {}
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
    with tempfile.TemporaryDirectory(prefix="seqstream-faults-") as folder:
        root = Path(folder)
        server = PostgresServer(root / "shared", fsync=False, settings={"max_connections": "200"})
        with server, progress:
            migrate(await asyncio.to_thread(server.create_database, _TEMPLATE))
            shared = SharedPostgres(server, _TEMPLATE)
            task = progress.add_task("faults", total=len(faults))
            for number, fault in enumerate(faults):
                progress.update(task, description=f"{fault.name:<42}")
                reason = fault.unavailable()
                if reason is not None:
                    skipped[fault.name] = reason
                else:
                    world = root / f"world-{number}"
                    world.mkdir()
                    result = await run_fault(
                        fault, world, shared, size=size, length_s=fault.length_s * scale,
                        seed=seed, before_s=1.0, after_s=1.0,
                    )  # fmt: skip
                    results.append(result)
                    progress.console.print(_line(result), highlight=False)
                    for line in [*result.failures, *result.violations[:10]]:
                        progress.console.print(line, highlight=False, markup=False)
                progress.advance(task)
    return Run(
        seed=seed,
        began_at=began_at,
        took_s=time.monotonic() - began_s,
        machine=f"{platform.machine()}, {platform.system()} {platform.release()}",
        python=platform.python_version(),
        results=results,
        skipped=skipped,
    )


def _line(result: Result) -> str:
    verdict = "[green]ok[/]    " if result.ok else "[red]BROKEN[/]"
    notes = f" ({', '.join(result.notes)})" if result.notes else ""
    return (
        f"{verdict} {result.fault}: {result.acknowledged} acknowledged,"
        f" {result.delivered} delivered, {result.reconnects} reconnects,"
        f" {result.builds_ended} of {result.builds_asked} builds and"
        f" {sum(result.answer_ends.values())} of {result.answers_asked} answers ended,"
        f" longest delay {result.longest_delay_s:.2f} s{notes}"
    )


def _table(results: list[Result]) -> Table:
    table = Table(*_COLUMNS)
    for column in table.columns[1:]:
        column.justify = "right"
    for result in results:
        late = (
            result.allowed_delay_s is not None and result.longest_delay_s > result.allowed_delay_s
        )
        delay = f"{result.longest_delay_s:.2f}"
        table.add_row(
            result.fault,
            str(result.clients),
            f"{result.posts_per_s:.0f}",
            str(result.acknowledged),
            str(result.delivered),
            str(result.reconnects),
            f"{result.longest_silence_s:.2f}",
            f"[yellow]{delay} > {result.allowed_delay_s}[/]" if late else delay,
            str(result.lost),
            str(result.repeated),
            str(result.reordered),
            str(result.changed + result.other + len(result.failures)),
            str(result.builds_asked),
            str(result.builds_ended),
            str(result.builds_wrong),
            str(result.answers_asked),
            *(str(result.answer_ends.get(end, 0)) for end in _ANSWER_ENDS),
            str(result.answers_wrong),
            "[green]ok[/]" if result.ok else "[red]BROKEN[/]",
        )
    return table


if __name__ == "__main__":
    main()
