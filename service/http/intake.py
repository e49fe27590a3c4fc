"""What all connections of a process receive together: how much is pending, how much is malformed.

Counting alone: who receives bytes asks here whether they may be kept.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Final

from prometheus_client import Counter

_log = logging.getLogger(__name__)

DEFAULT_LIMIT_BYTES: Final = 64 * 1024 * 1024
_REPORT_EVERY_S: Final = 10.0


class Intake:
    """Bounds the bytes of unfinished requests, and counts the malformed ones."""

    def __init__(
        self,
        *,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
        malformed: Counter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """A limit of 0 is off; `malformed` counts along; `clock` gives monotonic seconds."""
        self.clock = clock
        self._limit_bytes = limit_bytes
        self._malformed = malformed
        self._pending_bytes = 0
        # Malformed requests since the last report.
        self.unreported = 0
        # None: nothing was reported as yet.
        self._reported_at_s: float | None = None

    @property
    def pending_bytes(self) -> int:
        """What is held of requests that are not whole, or wait behind others."""
        return self._pending_bytes

    def change(self, by_bytes: int) -> bool:
        """Count bytes (negative: that are let go of); tell whether more may be kept.

        Letting go is always right; bytes beyond the limit are counted too, until they are let go.
        """
        self._pending_bytes += by_bytes
        return by_bytes <= 0 or not 0 < self._limit_bytes < self._pending_bytes

    def count_malformed(self) -> None:
        """Count a request that is no HTTP, or none that is served."""
        self.unreported += 1
        if self._malformed is not None:
            self._malformed.inc()

    def report(self, now_s: float) -> None:
        """Say how many were malformed, in a line now and then: whoever sends them fills no disk."""
        if not self.unreported:
            return
        if self._reported_at_s is None or now_s - self._reported_at_s >= _REPORT_EVERY_S:
            _log.warning("malformed requests", extra={"requests": self.unreported})
            self.unreported = 0
            self._reported_at_s = now_s
