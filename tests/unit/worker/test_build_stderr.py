"""docs/builds.md: standard error of a build is bounded, and is only text in log records."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable

import pytest

from service.worker.build_stderr import (
    BURST_LINES,
    LINE_CHARACTERS,
    LINES_PER_BUILD,
    LINES_PER_SECOND,
    StderrLog,
    shown,
)


class _Clock:
    """A clock that only the test advances."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def _lines(
    lines: Iterable[bytes], before_each: Callable[[], None] = lambda: None
) -> AsyncIterator[bytes]:
    for line in lines:
        before_each()
        yield line


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    caplog.set_level(logging.INFO, "service.worker.build_stderr")
    return caplog


def _logged(records: pytest.LogCaptureFixture) -> list[str]:
    return [record.build_stderr for record in records.records if hasattr(record, "build_stderr")]


def _dropped(records: pytest.LogCaptureFixture) -> list[tuple[int, int]]:
    ends = [vars(record) for record in records.records if hasattr(record, "dropped_lines")]
    return [(end["dropped_lines"], end["dropped_bytes"]) for end in ends]


async def test_lines_are_fields_beside_those_of_the_build(
    records: pytest.LogCaptureFixture,
) -> None:
    """The log message is constant: the text of a build is only a field."""
    forged = b'{"level": "error", "message": "forged"}'
    await StderrLog({"build_id": "b"}, _Clock()).follow(_lines([forged]))
    (record,) = records.records
    assert (record.getMessage(), record.levelname) == ("build wrote to stderr", "INFO")
    assert (record.build_stderr, record.build_id) == (forged.decode(), "b")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (b"plain \xc3\xa9", "plain é"),
        (b"a\nb\r", "a\\nb\\r"),
        (b"\x1b[2J", "\\x1b[2J"),
        (b"\x00\x07", "\\x00\\x07"),
        ("\u2028\u202e".encode(), "\\u2028\\u202e"),
        (b"\xff", "\ufffd"),
    ],
)
def test_control_characters_are_shown_escaped(line: bytes, text: str) -> None:
    """No line breaks, terminal commands or right-to-left text reach the log."""
    assert shown(line) == text


@pytest.mark.parametrize("character", ["x", "é", "🧵"])
def test_a_line_is_cut(character: str) -> None:
    """1,000 characters per line, whatever their size in bytes."""
    line = (character * LINE_CHARACTERS * 2).encode()
    assert shown(line) == character * LINE_CHARACTERS


async def test_lines_a_second_are_bounded_and_the_rest_is_counted(
    records: pytest.LogCaptureFixture,
) -> None:
    """A burst of 100, then 20 per second; one record reports how much was dropped."""
    clock = _Clock()
    log = StderrLog({}, clock)
    await log.follow(_lines([b"12345"] * (BURST_LINES + 7)))
    assert len(_logged(records)) == BURST_LINES
    assert _dropped(records) == [(7, 35)]
    clock.now_s += 1
    await log.follow(_lines([b"1"] * BURST_LINES))
    assert len(_logged(records)) == BURST_LINES + LINES_PER_SECOND


async def test_lines_of_a_build_are_bounded(records: pytest.LogCaptureFixture) -> None:
    """1,000 lines per build, at any rate."""
    clock = _Clock()

    def wait() -> None:
        clock.now_s += 1

    await StderrLog({}, clock).follow(_lines([b"x"] * (LINES_PER_BUILD + 3), wait))
    assert len(_logged(records)) == LINES_PER_BUILD
    assert _dropped(records) == [(3, 3)]
