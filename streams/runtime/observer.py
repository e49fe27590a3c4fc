"""What the library tells whoever measures it. The service turns it into metrics; here it is silent.

Methods are called in the loop's thread, often: they must be cheap and must not raise.
"""

from __future__ import annotations


class Observer:
    """Does nothing; subclass and override what is wanted."""

    def committed(self, messages: int) -> None:
        """A batch of that many new messages was committed."""

    def published(self, messages: int, elapsed_ms: float) -> None:
        """Messages are in the window, so long after their commit."""

    def gap_found(self) -> None:
        """A tail or a window lacked messages that the log has."""

    def gap_healed(self) -> None:
        """They were fetched from the log."""

    def entries_skipped(self, entries: int) -> None:
        """Entries of a stream in Redis were not ours and were skipped."""

    def lagging(self, seqs: int) -> None:
        """How far the furthest tail of this process was behind its head at the last poll."""

    def replayed(self, source: str, messages: int) -> None:
        """A reader was served missed messages from this tier."""

    def redis(self, up: bool) -> None:
        """Redis answers, or no longer does."""

    def postgres(self, up: bool) -> None:
        """Postgres answers, or no longer does."""
