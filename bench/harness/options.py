"""The options of all workloads, and the command line that reads them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import click
import msgspec

from bench.harness.report import Report, Screen, write
from bench.harness.servers import ROOT, raise_file_limit

# The number of rounds and the seconds of each.
SHORT = (3, 3.0)
FULL = (5, 15.0)


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure, how long and how often.

    There are `rounds` of `seconds` each; before each, up to `quiet_s` pass in waiting for an idle
    machine. `sizes` replaces the workload's default sizes. `service_env` is added to the service's
    environment. `profile` samples the service's Python stack.
    """

    rounds: int = SHORT[0]
    seconds: float = SHORT[1]
    quiet_s: float = 0.0
    peers: bool = True
    profile: bool = False
    text_bytes: int = 250
    sizes: tuple[int, ...] = ()
    service_env: dict[str, str] = {}


Measure = Callable[[Options, Screen], Awaitable[Report]]


def command(measure: Measure, *, help_text: str, sizes_help: str = "") -> click.Command:
    """Make the command of one workload's script."""

    def run(
        full: bool,
        rounds: int | None,
        seconds: float | None,
        peers: bool,
        profile: bool,
        quiet: float,
        text_bytes: int,
        sizes: tuple[int, ...],
        env: tuple[str, ...],
        results: Path,
    ) -> None:
        options = Options(
            rounds=rounds or (FULL if full else SHORT)[0],
            seconds=seconds or (FULL if full else SHORT)[1],
            peers=peers,
            profile=profile,
            quiet_s=quiet,
            text_bytes=text_bytes,
            sizes=sizes,
            service_env=parse_env(env),
        )
        raise_file_limit()
        screen = Screen()
        report = asyncio.run(_measured(measure, options, screen))
        write(report, results, screen)
        sys.exit(0 if report.sound else 1)

    def callback(short: bool, sizes: tuple[int, ...] = (), **rest: object) -> None:
        run(full=not short, sizes=sizes, **rest)  # type: ignore[arg-type]

    return click.Command(
        None, params=_parameters(sizes_help), callback=callback, help=help_text,
        context_settings={"show_default": True},
    )  # fmt: skip


def _parameters(sizes_help: str) -> list[click.Parameter]:
    parameters: list[click.Parameter] = [
        click.Option(["--short/--full", "short"], default=True, help="Seconds or minutes."),
        click.Option(["--rounds"], type=click.IntRange(1), help="Rounds; medians are reported."),
        click.Option(["--seconds"], type=click.FloatRange(0.5), help="Length of a round."),
        click.Option(["--peers/--no-peers"], default=True, help="Measure other systems too."),
        click.Option(["--profile"], is_flag=True, help="Sample the service with py-spy."),
        click.Option(
            ["--quiet"], type=click.FloatRange(0), default=0.0,
            help="Seconds to wait at most, before a round, for the machine to be idle.",
        ),
        click.Option(["--text-bytes"], type=click.IntRange(40, 65_536), default=250),
        click.Option(
            ["--env"], multiple=True, metavar="NAME=VALUE", help="For the service's environment."
        ),
        click.Option(
            ["--results"], type=click.Path(path_type=Path), default=ROOT / "bench" / "results",
            show_default=False, help="Folder for JSON and plots [bench/results].",
        ),
    ]  # fmt: skip
    if sizes_help:
        parameters.append(
            click.Option(["--size", "sizes"], type=click.IntRange(1), multiple=True,
                         help=sizes_help)
        )  # fmt: skip

    return parameters


def parse_env(pairs: tuple[str, ...]) -> dict[str, str]:
    """Split NAME=VALUE pairs. Raises `click.BadParameter` for another form."""
    parsed = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise click.BadParameter(f"not NAME=VALUE: {pair}")
        parsed[name] = value
    return parsed


async def _measured(measure: Measure, options: Options, screen: Screen) -> Report:
    with screen:
        return await measure(options, screen)
