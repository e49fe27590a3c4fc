"""A load run on the terminal: what is shown while it goes on, and at its end."""

from __future__ import annotations

import io

import msgspec
from rich.console import Console, RenderableType

from service.operate.load_figures import (
    ConnectionVerdict,
    LatencySummary,
    LoadCounters,
    LoadReport,
    Verdict,
)
from service.operate.load_table import LoadTable, summary

_CLEAN = LoadReport(
    clean=True,
    connections=2,
    seconds=1.0,
    posted=5,
    posts_per_second=5.0,
    late=0,
    unsent=0,
    deliveries=10,
    deliveries_per_second=10.0,
    received_bytes=4200,
    reconnects=1,
    post_latency=LatencySummary(5, 1.0, 2.0, 3.0, 4.0),
    event_latency=None,
    post_errors={},
    interruptions={"shutdown [x]": 1},
    own_cpu=0.25,
    verdict=Verdict(True, 0, 0, 0, 0, (), ()),
)


def _lines(shown: RenderableType) -> list[str]:
    console = Console(file=io.StringIO(), width=120)
    console.print(shown)
    assert isinstance(console.file, io.StringIO)
    return [line.strip() for line in console.file.getvalue().splitlines()]


def test_a_run_that_goes_on_shows_totals_and_connections() -> None:
    """Also how many posts wait: an open loop falls behind a slow service."""
    counters = LoadCounters()
    counters.posted, counters.due, counters.begun, counters.live = 3, 9, 4, 2
    counters.post_latency.record(2000)
    counters.note_error("status 503")
    lines = _lines(LoadTable(connections=2, posts=10).render(counters))
    assert lines[1].split() == ["posts", "3", "of", "10", "0", "2.0", "ms", "2.0", "ms"]
    assert lines[-1] == "connections 2 of 2, reconnects 0, late 0, waiting 5, failed 1"


def test_the_end_has_the_verdict_in_its_last_line() -> None:
    """What a peer says is shown as it is, not as markup."""
    lines = _lines(summary(_CLEAN))
    assert lines[-1] == "clean: lost 0, repeated 0, reordered 0, changed 0"
    assert "stream ended: shutdown [x] (1)" in lines


def test_what_is_not_clean_names_its_connections() -> None:
    """The first ten, and how many more."""
    rows = tuple(ConnectionVerdict("p", number, 4, 0, 1, 0, 0, 0) for number in range(12))
    verdict = Verdict(False, 12, 0, 0, 0, ("p connection 0: seqs 5 to 5: not received",), rows)
    lines = _lines(summary(msgspec.structs.replace(_CLEAN, clean=False, verdict=verdict)))
    assert "p connection 0: seqs 5 to 5: not received" in lines
    assert "and 2 more" in lines
    assert lines[-1] == "NOT CLEAN: lost 12, repeated 0, reordered 0, changed 0"


def test_posts_without_an_answer_are_not_clean_either() -> None:
    """Nothing was lost, and yet the service did not take what was posted."""
    report = msgspec.structs.replace(_CLEAN, clean=False, unsent=3, post_errors={"status 503": 2})
    lines = _lines(summary(report))
    assert "posts that began late: 0; not begun: 3" in lines
    assert "post failed: status 503 (2)" in lines
    assert lines[-1].endswith("but not every post was answered")
