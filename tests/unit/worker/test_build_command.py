"""docs/protocol.md §8: the output of a build, and its bounds."""

from __future__ import annotations

import asyncio

import pytest

from service.worker.build_command import MAX_LINE_BYTES, Progress, lines, read_line


async def _lines(*blocks: bytes) -> list[bytes]:
    stream = asyncio.StreamReader()
    for block in blocks:
        stream.feed_data(block)
    stream.feed_eof()
    return [line async for line in lines(stream)]


@pytest.mark.parametrize(
    ("raw", "progress"),
    [
        (b'{"progress": 50, "step": "s", "message": "m"}', Progress(50.0, "s", "m")),
        (b'{"progress": 1e9}', Progress(100.0)),
        (b'{"progress": -1}', Progress(0.0)),
        (b'{"other": 1}', Progress()),
        (b"plain text", Progress(message="plain text")),
        (b'{"progress": "half"}', Progress(message='{"progress": "half"}')),
        (b"[1]", Progress(message="[1]")),
        (b"", Progress()),
        (b"\xff\x00x", Progress(message="\ufffdx")),
        (b"y" * 2000, Progress(message="y" * 500)),
        (b'{"message": "a\\u0000b"}', Progress(message="ab")),
    ],
)
def test_lines_are_objects_of_the_protocol_or_messages(raw: bytes, progress: Progress) -> None:
    """One JSON object per line; any other line is a message. Values are always storable."""
    assert read_line(raw).progress == progress


def test_the_result_keeps_its_bytes() -> None:
    """`result` may be any JSON."""
    assert read_line(b'{"result": {"a": [1, 2]}}').result == b'{"a": [1, 2]}'
    assert read_line(b'{"step": "s"}').result is None


async def test_lines_are_joined_across_blocks() -> None:
    """A line ends at its line feed, or at the end of the stream."""
    assert await _lines(b"a\nb", b"c\n", b"\nd") == [b"a", b"bc", b"", b"d"]


async def test_an_endless_line_is_cut() -> None:
    """A line of any length uses bounded memory."""
    (first, second) = await _lines(b"x" * (MAX_LINE_BYTES * 3), b"x\nnext")
    assert (len(first), second) == (MAX_LINE_BYTES, b"next")
