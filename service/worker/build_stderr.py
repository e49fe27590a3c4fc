"""The standard error of a build, logged as fields of this process's log records.

Builds are not trusted: they cannot forge records, and their text is bounded per line, per second
and per build. Lines above the bounds are still read, so that the build does not block, and counted.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping

from streams.model.token_bucket import TokenBucket

_log = logging.getLogger(__name__)

LINE_CHARACTERS = 1000
LINES_PER_SECOND = 20
BURST_LINES = 100
LINES_PER_BUILD = 1000


class StderrLog:
    """Logs the lines of one build with its `fields`."""

    def __init__(
        self, fields: Mapping[str, object], clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._fields = fields
        self._bucket = TokenBucket(LINES_PER_SECOND, BURST_LINES, clock_s)
        self._left = LINES_PER_BUILD
        self._dropped_lines = 0
        self._dropped_bytes = 0

    async def follow(self, lines: AsyncIterator[bytes]) -> None:
        """Log all lines, then how many lines and bytes were dropped."""
        try:
            async for line in lines:
                self._write(line)
        finally:
            if self._dropped_lines:
                _log.warning(
                    "build wrote more to stderr than is logged",
                    extra={
                        **self._fields,
                        "dropped_lines": self._dropped_lines,
                        "dropped_bytes": self._dropped_bytes,
                    },
                )

    def _write(self, line: bytes) -> None:
        if self._left == 0 or self._bucket.take() > 0:
            self._dropped_lines += 1
            self._dropped_bytes += len(line)
            return
        self._left -= 1
        _log.info("build wrote to stderr", extra={**self._fields, "build_stderr": shown(line)})


def shown(line: bytes) -> str:
    """Return a line cut and escaped: no control character reaches a terminal or a log reader."""
    # Cut as bytes first: decoding all of a long line would be wasted.
    text = line[: 4 * LINE_CHARACTERS].decode("utf-8", "replace")[:LINE_CHARACTERS]
    return "".join(
        character if character.isprintable() else ascii(character)[1:-1] for character in text
    )
