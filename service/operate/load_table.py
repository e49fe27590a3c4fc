"""A load run as a table on the terminal: while it goes on, and at its end. Only presentation."""

from __future__ import annotations

import time

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from service.operate.command_frame import harmless
from service.operate.load_figures import Latencies, LatencySummary, LoadCounters, LoadReport

_WORST = 10


class LoadTable:
    """The live table: rates since the last look, and totals."""

    def __init__(self, *, connections: int, posts: int) -> None:
        self._connections = connections
        self._posts = posts
        self._looked_s = time.monotonic()
        self._last = (0, 0, 0)
        self._rates = (0.0, 0.0, 0.0)

    def render(self, counters: LoadCounters) -> RenderableType:
        """Return the table of this moment."""
        now_s = time.monotonic()
        totals = (counters.posted, counters.deliveries, counters.received_bytes)
        if now_s - self._looked_s >= 1.0:
            passed_s = now_s - self._looked_s
            self._rates = tuple(  # type: ignore[assignment]
                (total - last) / passed_s for total, last in zip(totals, self._last, strict=True)
            )
            self._looked_s, self._last = now_s, totals
        posts, deliveries, size = self._rates
        table = _plain_table("", "total", "a second", "p50", "p99")
        table.add_row(
            "posts", f"{counters.posted} of {self._posts}", f"{posts:.0f}",
            *_quantiles(counters.post_latency),
        )  # fmt: skip
        table.add_row(
            "events", f"{counters.deliveries}", f"{deliveries:.0f}",
            *_quantiles(counters.event_latency),
        )  # fmt: skip
        table.add_row("bytes", _size(counters.received_bytes), _size(size), "", "")
        late = f"late {counters.late}, waiting {max(counters.due - counters.begun, 0)}"
        errors = sum(counters.post_errors.values())
        line = (
            f"connections {counters.live} of {self._connections}, "
            f"reconnects {counters.reconnects}, {late}, failed {errors}"
        )
        return Group(table, Text(line))


def summary(report: LoadReport) -> RenderableType:
    """Return the end of a run: figures, then the verdict."""
    verdict = report.verdict
    table = _plain_table("", "count", "a second", "p50", "p90", "p99", "max")
    table.add_row(
        "posts", f"{report.posted}", f"{report.posts_per_second}", *_row(report.post_latency)
    )
    table.add_row(
        "events",
        f"{report.deliveries}",
        f"{report.deliveries_per_second}",
        *_row(report.event_latency),
    )
    lines = [
        f"connections {report.connections}, reconnects {report.reconnects}, "
        f"received {_size(report.received_bytes)}, own use of a core {report.own_cpu:.0%}",
    ]
    if report.late or report.unsent:
        lines.append(f"posts that began late: {report.late}; not begun: {report.unsent}")
    lines += [f"post failed: {why} ({count})" for why, count in report.post_errors.items()]
    lines += [f"stream ended: {why} ({count})" for why, count in report.interruptions.items()]
    lines += verdict.examples
    found = (
        f"lost {verdict.lost}, repeated {verdict.repeated}, reordered {verdict.reordered}, "
        f"changed {verdict.changed}"
    )
    if verdict.clean and not report.clean:
        found += "; but not every post was answered"
    colour = "green" if report.clean else "red"
    parts: list[RenderableType] = [table, *(Text(harmless(line)) for line in lines)]
    worst = _worst(report)
    if worst is not None:
        parts.append(worst)
    parts.append(Text(f"{'clean' if report.clean else 'NOT CLEAN'}: {found}", style=colour))
    return Group(*parts)


def _worst(report: LoadReport) -> Table | None:
    rows = [row for row in report.verdict.connections if not row.is_clean]
    if not rows:
        return None
    table = _plain_table("connection", "received", "lost", "repeated", "reordered", "changed")
    for row in rows[:_WORST]:
        table.add_row(
            f"{row.project} {row.number}", f"{row.deliveries}", f"{row.lost}", f"{row.repeated}",
            f"{row.reordered}", f"{row.changed}",
        )  # fmt: skip
    if len(rows) > _WORST:
        table.add_row(f"and {len(rows) - _WORST} more", "", "", "", "", "")
    return table


def _plain_table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number == 0 else "right")
    return table


def _quantiles(latencies: Latencies) -> tuple[str, str]:
    if not latencies.count:
        return "", ""
    return tuple(_ms(latencies.quantile_us(share) / 1000) for share in (0.5, 0.99))  # type: ignore[return-value]


def _row(summary: LatencySummary | None) -> tuple[str, ...]:
    if summary is None:
        return ("", "", "", "")
    return tuple(
        _ms(each) for each in (summary.p50_ms, summary.p90_ms, summary.p99_ms, summary.max_ms)
    )


def _ms(value: float) -> str:
    return f"{value:.1f} ms"


def _size(size_bytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.1f} GB"
