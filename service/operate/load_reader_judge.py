"""Judges what one stream of a load run received, event by event. Pure.

The rules are those of docs/protocol.md §2, G3: each message once, in order, or announced as not
sent. What it means for the run, and the comparison with the history, is in `load_verdict.py`.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Protocol

from service.operate.load_figures import ConnectionVerdict

_MAX_MISSING = 1000


class Findings(Protocol):
    """What a reader's judge tells its project's."""

    def received(self, reader: ReaderJudge, seq: int, digest: int) -> None:
        """A message with this content arrived."""

    def example(self, text: str, reader: ReaderJudge | None = None) -> None:
        """Something is wrong."""


class ReaderJudge:
    """Judges one connection and those that follow when it is cut, in the order of events."""

    def __init__(self, findings: Findings, number: int) -> None:
        self.number = number
        self.deliveries = 0
        self.connections = 0
        self.lost = self.repeated = self.reordered = self.changed = 0
        self._findings = findings
        self._start = 0
        self._next: int | None = None
        # Skipped on this connection without a word; in order.
        self._missing: list[list[int]] = []
        # Announced as not sent: the next seq to fetch, and the first after the range.
        self._gap: list[int] | None = None

    @property
    def reached(self) -> int | None:
        """The last seq that is covered; None before the first stream was opened."""
        if self._gap is not None:
            return self._gap[0] - 1
        return None if self._next is None else self._next - 1

    def connecting(self, cursor: int | None) -> None:
        """A connection begins, after this cursor."""
        self._end_connection()
        self.connections += 1
        if cursor is None:
            return
        if self._next is not None and cursor >= self._next:
            self._lose(self._next, cursor, "passed over at a reconnect")
        self._start, self._next = cursor, cursor + 1

    def opened(self, head: int) -> None:
        """`stream.open`: without a cursor, what follows begins after the head."""
        if self._next is None:
            self._start, self._next = head, head + 1

    def message(self, seq: int, digest: int) -> None:
        """A message arrived on the stream."""
        self.deliveries += 1
        self._end_gap()
        following = seq if self._next is None else self._next
        if seq >= following:
            if seq > following:
                self._skip(following, seq - 1)
            self._next = seq + 1
        elif seq > self._start and self._was_missing(seq):
            self.reordered += 1
            self._findings.example(f"seq {seq} after {following - 1}", self)
        else:
            self.repeated += 1
            self._findings.example(f"seq {seq} again", self)
        self._findings.received(self, seq, digest)

    def announced(self, live_from: int) -> None:
        """`replay.end`: what is before this seq and was not sent is to be fetched."""
        if self._next is not None and live_from > self._next:
            self._gap = [self._next, live_from]
            self._next = live_from

    def fetched(self, seq: int, digest: int) -> None:
        """A message of the announced range came from the history."""
        if self._gap is not None:
            self.deliveries += 1
            if seq > self._gap[0]:
                self._lose(self._gap[0], seq - 1, "not in the fetched range")
            self._gap[0] = seq + 1
            self._findings.received(self, seq, digest)

    def reset(self, head: int) -> None:
        """`stream.reset`: it goes on after this head; what is before is announced as not sent."""
        self._end_connection()
        self._start, self._next = head, head + 1

    def finish(self, head: int) -> None:
        """The run is over, and the project's head is this."""
        self._end_gap()
        self._end_connection()
        if self._next is None:
            self._lose(head, head, "no stream was opened")
        elif self._next <= head:
            self._lose(self._next, head, "not received")

    def verdict(self, project_id: str) -> ConnectionVerdict:
        """Return what was found."""
        return ConnectionVerdict(
            project_id,
            self.number,
            self.deliveries,
            max(self.connections - 1, 0),
            self.lost,
            self.repeated,
            self.reordered,
            self.changed,
        )

    def _end_gap(self) -> None:
        """What was announced has to be fetched before the next message."""
        if self._gap is not None and self._gap[0] < self._gap[1]:
            self._lose(self._gap[0], self._gap[1] - 1, "announced, and not fetched")
        self._gap = None

    def _end_connection(self) -> None:
        # A range that is still being fetched is asked for again, after its last message.
        if self._gap is not None:
            self._next, self._gap = self._gap[0], None
        for first, last in self._missing:
            self._lose(first, last, "skipped, and not announced")
        self._missing.clear()

    def _skip(self, first: int, last: int) -> None:
        if len(self._missing) < _MAX_MISSING:
            self._missing.append([first, last])
        else:
            self._lose(first, last, "skipped, and not announced")

    def _was_missing(self, seq: int) -> bool:
        at = bisect_right(self._missing, seq, key=lambda each: each[0]) - 1
        if at < 0 or not self._missing[at][0] <= seq <= self._missing[at][1]:
            return False
        first, last = self._missing.pop(at)
        halves = [[first, seq - 1], [seq + 1, last]]
        self._missing[at:at] = [half for half in halves if half[0] <= half[1]]
        return True

    def _lose(self, first: int, last: int, why: str) -> None:
        self.lost += last - first + 1
        self._findings.example(f"seqs {first} to {last}: {why}", self)
