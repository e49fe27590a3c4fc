"""Run all workloads, one after another, and print one table of the targets."""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path

import click
import msgspec

from bench import (
    w1_fanout,
    w2_fanout,
    w3_append,
    w4_http_append,
    w5_projects,
    w6_idle,
    w7_resume,
    w8_latency,
)
from bench.harness.child import ChildError
from bench.harness.options import FULL, SHORT, Measure, Options, parse_env
from bench.harness.posting import RoundFailed
from bench.harness.report import Report, Screen, outcomes_table, write
from bench.harness.servers import ROOT, ServerError, raise_file_limit
from bench.harness.targets import Outcome
from service.operate.embedded import EmbeddedError

_WORKLOADS: dict[str, Measure] = {
    "w1": w1_fanout.measure,
    "w2": w2_fanout.measure,
    "w3": w3_append.measure,
    "w4": w4_http_append.measure,
    "w5": w5_projects.measure,
    "w6": w6_idle.measure,
    "w7": w7_resume.measure,
    "w8": w8_latency.measure,
}


class Summary(msgspec.Struct, frozen=True):
    """The targets of all workloads of one pass."""

    started_at: str
    commit: str
    took_s: float
    sound: bool
    outcomes: list[Outcome]
    failed: dict[str, str]


@click.command(help=__doc__, context_settings={"show_default": True})
@click.option("--short/--full", default=True, help="Under ten minutes, or about an hour.")
@click.option("--peers/--no-peers", default=True, help="Measure other systems too.")
@click.option(
    "--quiet",
    type=click.FloatRange(0),
    default=0.0,
    help="Seconds to wait at most, before a round, for the machine to be idle.",
)
@click.option("--only", multiple=True, type=click.Choice(list(_WORKLOADS)), help="Only these.")
@click.option("--env", multiple=True, metavar="NAME=VALUE", help="For the service's environment.")
@click.option(
    "--results", type=click.Path(path_type=Path), default=ROOT / "bench" / "results",
    show_default=False, help="Folder for JSON and plots [bench/results].",
)  # fmt: skip
def main(
    short: bool,
    peers: bool,
    quiet: float,
    only: tuple[str, ...],
    env: tuple[str, ...],
    results: Path,
) -> None:
    """Run the workloads; exit with 1 when a check failed. A missed target is not a failure."""
    raise_file_limit()
    rounds, seconds = SHORT if short else FULL
    options = Options(
        rounds=rounds, seconds=seconds, peers=peers, quiet_s=quiet, service_env=parse_env(env)
    )
    screen = Screen()
    begun = time.monotonic()
    reports: list[Report] = []
    failed: dict[str, str] = {}
    for name in only or _WORKLOADS:
        started = time.monotonic()
        try:
            report = asyncio.run(_one(_WORKLOADS[name], options, screen))
        except (ServerError, EmbeddedError, ChildError, RoundFailed, AssertionError) as error:
            failed[name] = str(error)
            screen.say(f"[red]{name} failed: {error}[/red]")
            continue
        report = msgspec.structs.replace(report, took_s=time.monotonic() - started)
        write(report, results, screen)
        reports.append(report)
    outcomes = [outcome for report in reports for outcome in report.outcomes]
    sound = not failed and all(report.sound for report in reports)
    screen.console.print()
    screen.console.print(outcomes_table(outcomes))
    took_s = time.monotonic() - begun
    screen.say(f"took {took_s / 60:.1f} minutes")
    if reports:
        summary = Summary(
            started_at=reports[0].started_at, commit=reports[0].setting.commit, took_s=took_s,
            sound=sound, outcomes=outcomes, failed=failed,
        )  # fmt: skip
        text = msgspec.json.format(msgspec.json.encode(summary), indent=1)
        (results / "all.json").write_bytes(text + b"\n")
    sys.exit(0 if sound else 1)


async def _one(measure: Measure, options: Options, screen: Screen) -> Report:
    with screen:
        return await measure(options, screen)


if __name__ == "__main__":
    main()
