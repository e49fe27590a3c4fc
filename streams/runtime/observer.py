"""The events of the library that can be measured. The service counts them as metrics.

Methods are called often, in the event loop's thread: they must be fast and must not raise.
"""

from __future__ import annotations


class Observer:
    """Ignores every event; subclasses override what they measure."""

    def committed(self, messages: int) -> None:
        """A batch of that many new messages was committed."""

    def published(self, messages: int, elapsed_ms: float) -> None:
        """Messages are in the window, `elapsed_ms` after their commit."""

    def gap_found(self) -> None:
        """A tail or a window lacks messages that the log has."""

    def gap_healed(self) -> None:
        """The missing messages were fetched from the log."""

    def entries_skipped(self, entries: int) -> None:
        """Entries of a stream in Redis were skipped because this service did not write them."""

    def lagging(self, seqs: int) -> None:
        """At the last poll, the tail furthest behind its head was that many seqs behind."""

    def replayed(self, source: str, messages: int) -> None:
        """A reader was served missed messages from the tier `source`."""

    def redis(self, up: bool) -> None:
        """Redis became healthy or unhealthy."""

    def postgres(self, up: bool) -> None:
        """Postgres became available or unavailable."""
