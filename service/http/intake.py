"""What all connections of a process receive: how many bytes are pending, how many malformed.

It counts, and nothing else: the protocol asks here whether received bytes may be kept.
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
    """Bounds the bytes of unfinished requests, and counts malformed requests."""

    def __init__(
        self,
        *,
        limit_bytes: int = DEFAULT_LIMIT_BYTES,
        malformed: Counter | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`limit_bytes` 0 turns the limit off; the metric `malformed` is incremented too.

        `clock` gives monotonic seconds; the connections' deadlines use it too.
        """
        self.clock = clock
        self._limit_bytes = limit_bytes
        self._malformed = malformed
        self._pending_bytes = 0
        # Malformed requests since the last report.
        self.unreported = 0
        # None until the first report.
        self._reported_at_s: float | None = None

    @property
    def pending_bytes(self) -> int:
        """What is held of requests that are unfinished, or wait behind others."""
        return self._pending_bytes

    def change(self, by_bytes: int) -> bool:
        """Add to the pending bytes (negative: released ones); tell whether more may be kept.

        A release always returns True. Bytes beyond the limit are counted until they are released.
        """
        self._pending_bytes += by_bytes
        return by_bytes <= 0 or not 0 < self._limit_bytes < self._pending_bytes

    def count_malformed(self) -> None:
        """Count a request that is not HTTP, or that the protocol refuses."""
        self.unreported += 1
        if self._malformed is not None:
            self._malformed.inc()

    def report(self, now_s: float) -> None:
        """Log how many were malformed, at most one line in 10 s: clients must not fill the disk."""
        if not self.unreported:
            return
        if self._reported_at_s is None or now_s - self._reported_at_s >= _REPORT_EVERY_S:
            _log.warning("malformed requests", extra={"requests": self.unreported})
            self.unreported = 0
            self._reported_at_s = now_s
