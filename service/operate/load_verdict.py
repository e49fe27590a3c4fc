"""Judges what the connections of a load run received, against the history. Pure.

The rules are those of docs/protocol.md §2: G1 (no hole) and G5 (a post is stored once); G3, of
one stream, is in `load_reader_judge.py`. One project at a time. Memory is 16 bytes for each message
of the run, and bounded for what is wrong.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence

from service.operate.load_figures import Verdict
from service.operate.load_reader_judge import ReaderJudge

_MAX_KEPT = 1000
# 128 MB for each of two tables. A peer that invents a seq must not choose how much is kept.
_MAX_SEQS = 16_000_000
_MAX_EXAMPLES = 20


class ProjectJudge:
    """One project of a run: its connections, the posts that were acknowledged, its history.

    Seqs up to `base`, the head before the run, are not looked at. `posts` is how many there are.
    """

    def __init__(self, project_id: str, base: int, posts: int) -> None:
        self.project_id = project_id
        self.readers: list[ReaderJudge] = []
        self.examples: list[str] = []
        self.lost = self.repeated = self.changed = 0
        self.base = base
        self._received = array("Q")
        self._acknowledged = array("Q")
        self._stored = bytearray(posts)
        # Received with another content than by the first reader; judged by the history.
        self._deviations: dict[int, list[tuple[ReaderJudge, int]]] = {}
        self._next = base + 1

    def reader(self) -> ReaderJudge:
        """Return the judge of one more connection."""
        judge = ReaderJudge(self, len(self.readers))
        self.readers.append(judge)
        return judge

    def received(self, reader: ReaderJudge, seq: int, digest: int) -> None:
        """A reader has a message with this content."""
        at = _place(self._received, seq - self.base - 1)
        if at is None:
            return
        if not self._received[at]:
            self._received[at] = digest | 1
        elif self._received[at] != digest | 1:
            if len(self._deviations) < _MAX_KEPT:
                self._deviations.setdefault(seq, []).append((reader, digest | 1))
            else:
                self._change(seq, reader)

    def acknowledged(self, seq: int, number: int) -> None:
        """The service says that post `number` is stored as this seq."""
        at = _place(self._acknowledged, seq - self.base - 1)
        if at is None:
            self.lost += 1
            self.example(f"post {number} was acknowledged as seq {seq}, which is none of this run")
        elif self._acknowledged[at] not in (0, number + 1):
            self.changed += 1
            self.example(f"two posts were acknowledged as seq {seq}")
        else:
            self._acknowledged[at] = number + 1

    def stored(self, seq: int, digest: int, number: int | None) -> None:
        """The history has this message, of post `number` if it is one; in the order of seqs."""
        if seq != self._next:
            self._lack(self._next, seq - 1)
        self._next = seq + 1
        at = seq - self.base - 1
        if number is not None and number < len(self._stored):
            if self._stored[number]:
                self.repeated += 1
                self.example(f"post {number} is stored again as seq {seq}")
            self._stored[number] = 1
        acknowledged = _at(self._acknowledged, at)
        if acknowledged and acknowledged != (number if number is not None else -1) + 1:
            self.changed += 1
            self.example(f"seq {seq} is another message than post {acknowledged - 1}")
        if _at(self._received, at) not in (0, digest | 1):
            self._change(seq, None)
        for reader, received in self._deviations.pop(seq, ()):
            if received != digest | 1:
                self._change(seq, reader)

    def finish(self, head: int) -> None:
        """The history was read to its end, and the head is this."""
        end = self.base + len(self._acknowledged)
        self._lack(self._next, max(head, end))
        for reader in self.readers:
            reader.finish(head)

    def example(self, text: str, reader: ReaderJudge | None = None) -> None:
        """Keep one of the first things that were wrong."""
        if len(self.examples) < _MAX_EXAMPLES:
            where = "" if reader is None else f" connection {reader.number}"
            self.examples.append(f"{self.project_id}{where}: {text}")

    def _lack(self, first: int, last: int) -> None:
        if first <= last:
            self.lost += last - first + 1
            self.example(f"seqs {first} to {last} are not in the history")

    def _change(self, seq: int, reader: ReaderJudge | None) -> None:
        if reader is None:
            self.changed += 1
        else:
            reader.changed += 1
        self.example(f"seq {seq} has another content than in the history", reader)


def verdict_of(projects: Iterable[ProjectJudge]) -> Verdict:
    """Return the verdict on all projects of a run, which are finished."""
    judges = list(projects)
    rows = [each.verdict(judge.project_id) for judge in judges for each in judge.readers]
    lost = sum(judge.lost for judge in judges) + sum(row.lost for row in rows)
    repeated = sum(judge.repeated for judge in judges) + sum(row.repeated for row in rows)
    changed = sum(judge.changed for judge in judges) + sum(row.changed for row in rows)
    reordered = sum(row.reordered for row in rows)
    examples = [example for judge in judges for example in judge.examples]
    return Verdict(
        clean=not (lost or repeated or reordered or changed),
        lost=lost,
        repeated=repeated,
        reordered=reordered,
        changed=changed,
        examples=tuple(examples[:_MAX_EXAMPLES]),
        connections=tuple(rows),
    )


def _place(table: array[int], at: int) -> int | None:
    """Return the index, with the table long enough for it; None when no run has such a seq."""
    if not 0 <= at < _MAX_SEQS:
        return None
    if at >= len(table):
        table.frombytes(bytes(8 * (at + 1 - len(table))))
    return at


def _at(table: Sequence[int], at: int) -> int:
    return table[at] if 0 <= at < len(table) else 0
