"""A workload's report, written as JSON, tables and plots; and the live display of its progress."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.harness import plots
from bench.harness.drive import Round
from bench.harness.machine import Setting, setting
from bench.harness.stats import median
from bench.harness.targets import Outcome

# The width in a log file, which does not wrap lines; a terminal has its own width.
_FILE_WIDTH = 180
_STYLES = {"reached": "green", "missed": "red", "not measured": "yellow"}


class Figure(msgspec.Struct, frozen=True):
    """One quantity of one case, measured once per round; None where that was not possible."""

    case: str
    name: str
    unit: str
    values: tuple[float | None, ...]

    @property
    def median(self) -> float | None:
        """The median over the rounds."""
        return median(self.values)


class Plot(msgspec.Struct, frozen=True):
    """Bars of one figure over all cases, or lines over x when `points` are given."""

    title: str
    unit: str
    figure: str = ""
    x_label: str = ""
    series: dict[str, list[tuple[float, float]]] = {}
    log_y: bool = False


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """The result of one workload. `sound`: every check of the run passed."""

    workload: str
    title: str
    setting: Setting
    options: dict[str, str]
    figures: list[Figure]
    outcomes: list[Outcome]
    rounds: list[Round] = []
    notes: list[str] = []
    plots: list[Plot] = []
    sound: bool = True
    started_at: str = ""
    took_s: float = 0.0


class Screen:
    """The terminal during a workload: finished steps as lines, the current one as a bar."""

    def __init__(self) -> None:
        self.console = Console(highlight=False)
        if not self.console.is_terminal:
            self.console = Console(highlight=False, width=_FILE_WIDTH)
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[count]}"),
            TimeElapsedColumn(), console=self.console, transient=True,
        )  # fmt: skip
        self._task = self._progress.add_task("starting", total=None, count="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def step(self, text: str) -> Callable[[int, int], None]:
        """Begin a step; the returned function reports its progress."""
        self._progress.reset(self._task, description=text, total=None, count="")

        def advance(done: int, total: int) -> None:
            self._progress.update(self._task, completed=done, total=total, count=f"{done:,}")

        return advance

    def say(self, text: str) -> None:
        """Print a permanent line."""
        self.console.print(text)


def new_report(workload: str, title: str, options: msgspec.Struct) -> Report:
    """Return an empty report with the current time, machine and checkout."""
    return Report(
        workload=workload,
        title=title,
        setting=setting(),
        options={name: str(getattr(options, name)) for name in options.__struct_fields__},
        figures=[],
        outcomes=[],
        started_at=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    )


def write(report: Report, folder: Path, screen: Screen) -> None:
    """Print a report and write it: `<workload>.json` and one SVG per plot."""
    folder.mkdir(parents=True, exist_ok=True)
    show(report, screen.console)
    path = folder / f"{report.workload}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=1) + b"\n")
    if not plots.available():
        screen.say("no plots: matplotlib is not installed (pip install -r bench/requirements.txt)")
        return
    for plot in report.plots:
        target = folder / f"{report.workload}-{_slug(plot.title)}.svg"
        if plot.series:
            plots.lines(target, plot.title, plot.x_label, plot.unit, plot.series, log_y=plot.log_y)
        else:
            values = {
                figure.case: figure.median
                for figure in report.figures
                if figure.name == plot.figure and figure.median is not None
            }
            plots.bars(target, plot.title, plot.unit, values, ours="seqstream")


def show(report: Report, console: Console) -> None:
    """Print a report: cases as rows, quantities as columns, then the targets."""
    console.print()
    console.print(f"[bold]{report.title}[/bold]")
    if report.figures:
        console.print(_figures_table(report.figures))
    if report.outcomes:
        console.print(outcomes_table(report.outcomes))
    for note in report.notes:
        console.print(f"- {note}", soft_wrap=True)
    if not report.sound:
        console.print("[red]NOT SOUND: a check of the run failed, see above[/red]")


def outcomes_table(outcomes: Sequence[Outcome]) -> Table:
    """Return a table of targets, measured values and verdicts."""
    table = Table()
    for column in ("workload", "what", "target", "measured", "", "note"):
        table.add_column(column)
    for outcome in outcomes:
        style = _STYLES[outcome.verdict]
        table.add_row(
            outcome.target.workload, outcome.target.what, outcome.target.bound,
            _number(outcome.measured), f"[{style}]{outcome.verdict}[/{style}]", outcome.note,
        )  # fmt: skip
    return table


def _figures_table(figures: Sequence[Figure]) -> Table:
    table = Table()
    table.add_column("case")
    names = list(dict.fromkeys((figure.name, figure.unit) for figure in figures))
    for name, unit in names:
        table.add_column(f"{name}\n{unit}" if unit else name, justify="right")
    medians = {(figure.case, figure.name): figure.median for figure in figures}
    for case in dict.fromkeys(figure.case for figure in figures):
        table.add_row(case, *(_number(medians.get((case, name))) for name, _ in names))
    return table


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if abs(value) >= 999.5:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")
