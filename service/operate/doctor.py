"""`seqstream doctor`: checks the servers and their versions, and compares windows with the log."""

from __future__ import annotations

import time
from collections.abc import Sequence

import msgspec
from rich.table import Table

from service.settings import Settings, without_password
from streams.eventlog import EventLog
from streams.log.schema import read_schema
from streams.model.errors import StreamsError
from streams.model.events import encode
from streams.model.ids import EntryId
from streams.window.window import WINDOW_MESSAGES

_MIN_POSTGRES = (14,)
_MIN_REDIS = (6, 2)
_READ_AT_MOST = 10_000
# Larger than any window.
_READ_AT_MOST_BYTES = 64 * 1024 * 1024


class Finding(msgspec.Struct, frozen=True):
    """The result of one check."""

    name: str
    is_good: bool
    detail: str


async def examine(settings: Settings, verify: Sequence[str]) -> list[Finding]:
    """Check both servers, and compare the windows of the projects in `verify` with the log."""
    findings: list[Finding] = []
    async with EventLog.open(settings.database_url, settings.redis_url) as log:
        try:
            findings.append(await _postgres(log, settings))
            schema = await read_schema(log.database)
            detail = schema.problem or schema.note or "up to date"
            findings.append(Finding("schema", schema.problem is None, detail))
        except StreamsError as error:
            findings.append(Finding("Postgres", False, str(error)))
        try:
            findings.append(await _redis(log, settings))
        except StreamsError as error:
            findings.append(Finding("Redis", False, str(error)))
        for project_id in verify:
            try:
                findings.append(await verify_window(log, project_id))
            except StreamsError as error:
                findings.append(Finding(f"project {project_id}", False, str(error)))
    return findings


async def _postgres(log: EventLog, settings: Settings) -> Finding:
    started = time.perf_counter()
    version = await log.database.server_version()
    took_ms = (time.perf_counter() - started) * 1000
    fits = _numbers(version) >= _MIN_POSTGRES
    where = without_password(settings.database_url)
    return Finding("Postgres", fits, f"{version} at {where}, answered in {took_ms:.1f} ms")


async def _redis(log: EventLog, settings: Settings) -> Finding:
    started = time.perf_counter()
    version, policy = await log.window.server()
    took_ms = (time.perf_counter() - started) * 1000
    detail = f"{version} at {without_password(settings.redis_url)}, answered in {took_ms:.1f} ms"
    fits = _numbers(version) >= _MIN_REDIS
    if policy.startswith("allkeys"):
        # Not an error, because the log has every message; but reads get slower.
        detail += f"; maxmemory-policy {policy} may evict windows"
    return Finding("Redis", fits, detail)


async def verify_window(log: EventLog, project_id: str) -> Finding:
    """Compare every message of a project's stream with the log, byte for byte."""
    name = f"project {project_id}"
    entries = await log.window.read_after(project_id, EntryId(0, 0), count=_READ_AT_MOST)
    head = await log.head(project_id)
    stored = {entry.id.seq: entry.data for entry in entries if entry.id.k == 0}
    transient = len(entries) - len(stored)
    if not stored:
        return Finding(name, True, f"head {head}; the window is empty")
    low, high = min(stored), max(stored)
    messages = await log.log.read(
        project_id,
        after=low - 1,
        before=high + 1,
        limit=WINDOW_MESSAGES + 1,
        max_bytes=_READ_AT_MOST_BYTES,
    )
    expected = {message.seq: encode(message) for message in messages}
    different = sorted(
        seq for seq in stored.keys() | expected.keys() if stored.get(seq) != expected.get(seq)
    )
    detail = f"head {head}; window {low} to {high}, {transient} transient entries"
    if different:
        return Finding(name, False, f"{detail}; differs at seq {different[0]}")
    if high < head:
        detail += f"; {head - high} not published yet"
    return Finding(name, True, detail)


def table(findings: Sequence[Finding]) -> Table:
    """Return the findings as a table."""
    shown = Table(show_header=False, box=None)
    for finding in findings:
        mark = "[green]ok[/green]" if finding.is_good else "[red]bad[/red]"
        shown.add_row(mark, finding.name, finding.detail)
    return shown


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())
