"""Judge writers' and clients' histories against the log: G1 to G5 of docs/protocol.md §2.

Pure: no I/O and no clock. It does not depend on how a history was recorded. The log's rows are
checked first; then everything else is compared with them. One project at a time.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from tests.support.history import (
    Acknowledgement,
    ClientHistory,
    Connection,
    Event,
    LogRow,
    Post,
    log_row,
)
from tests.support.violations import Kind, Violation

MESSAGE_EVENTS = frozenset({"message.new", "message.replay"})
# §6: their ids set the client's cursor.
_CURSOR_EVENTS = frozenset({"stream.open", "stream.reset", "stream.refused"})


class Report(msgspec.Struct, frozen=True):
    """The verdict: every violation, and how much was judged."""

    violations: tuple[Violation, ...]
    head: int
    acknowledged: int
    delivered: int
    announced: int
    connections: int

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.violations

    def count(self, *kinds: Kind) -> int:
        """Return how many violations are of these kinds."""
        return sum(violation.kind in kinds for violation in self.violations)

    def __str__(self) -> str:
        if self.ok:
            return f"all well: {self.delivered} deliveries of {self.head} messages"
        counts = Counter(str(violation.kind) for violation in self.violations)
        lines = [", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))]
        lines += [str(violation) for violation in self.violations[:20]]
        return "\n".join(lines)


class _StreamOpen(msgspec.Struct, rename="camel"):
    head_seq: int
    cursor: int | None = None


class _ReplayEnd(msgspec.Struct, rename="camel"):
    last_replayed_seq: int
    live_from_seq: int


class _StreamReset(msgspec.Struct, rename="camel"):
    reason: str
    head_seq: int


def check(
    *,
    posts: Iterable[Post],
    acknowledgements: Iterable[Acknowledgement],
    clients: Sequence[ClientHistory],
    log: Sequence[LogRow],
) -> Report:
    """Judge one project. `log` is the whole log after the last post, in the order of seqs."""
    acks = list(acknowledgements)
    violations = [*_check_log(log, posts), *_check_acks(acks, log)]
    # A seq that is in the log twice is reported above; streams are compared with the first row.
    by_seq = {row.seq: row for row in reversed(log)}
    delivered = announced = 0
    for client in clients:
        judge = _ClientJudge(client, by_seq)
        violations += judge.judge()
        delivered += judge.delivered
        announced += len(judge.announced)
    return Report(
        violations=tuple(violations),
        head=max(by_seq, default=0),
        acknowledged=len({_key(ack.post) for ack in acks}),
        delivered=delivered,
        announced=announced,
        connections=sum(len(client.connections) for client in clients),
    )


def _key(post: Post) -> tuple[str, str]:
    return post.user_id, post.client_msg_id


def _check_log(log: Sequence[LogRow], posts: Iterable[Post]) -> Iterable[Violation]:
    posted = {_key(post): post for post in posts}
    seqs: set[int] = set()
    ids: set[str] = set()
    keys: set[tuple[str, str]] = set()
    for row in log:
        if row.seq in seqs or row.message_id in ids:
            yield Violation(Kind.LOG_REPEAT, row.seq, f"seq or id {row.message_id} again")
            continue
        if row.seq != len(seqs) + 1:
            missing = row.seq - len(seqs) - 1
            yield Violation(Kind.LOG_HOLE, row.seq, f"{missing} seqs missing before it")
            seqs.update(range(len(seqs) + 1, row.seq))
        seqs.add(row.seq)
        ids.add(row.message_id)
        key = (row.user_id, row.client_msg_id or "")
        post = posted.get(key)
        if row.client_msg_id is None and (row.build_end or row.answer_end) is not None:
            # Not posted, and judged by `build_checker.py` or `answer_checker.py`.
            continue
        if post is None:
            yield Violation(Kind.INVENTED, row.seq, "in the log, and nobody posted it")
        elif key in keys:
            yield Violation(Kind.LOG_REPEAT, row.seq, f"post {key[1]} again")
        elif post.text != row.text:
            yield Violation(Kind.CHANGED, row.seq, "the log has another text than was posted")
        keys.add(key)


def _check_acks(acks: Sequence[Acknowledgement], log: Sequence[LogRow]) -> Iterable[Violation]:
    rows = {(row.user_id, row.client_msg_id or ""): row for row in reversed(log)}
    first: dict[tuple[str, str], Acknowledgement] = {}
    for ack in acks:
        key = _key(ack.post)
        earlier = first.setdefault(key, ack)
        if (earlier.seq, earlier.message_id) != (ack.seq, ack.message_id):
            yield Violation(Kind.ACK_TWICE, ack.seq, f"{key[1]} was seq {earlier.seq} before")
    for key, ack in first.items():
        row = rows.get(key)
        if row is None:
            yield Violation(Kind.ACK_MISSING, ack.seq, f"{key[1]} is not in the log")
        elif (row.seq, row.message_id) != (ack.seq, ack.message_id):
            yield Violation(Kind.ACK_WRONG, ack.seq, f"{key[1]} is seq {row.seq} in the log")


class _ClientJudge:
    """Judges one client over all its connections."""

    def __init__(self, client: ClientHistory, log: dict[int, LogRow]) -> None:
        self._client = client
        self._log = log
        self._head = max(log, default=0)
        self._received: set[int] = set()
        self._first: int | None = None
        self._skipped: list[Violation] = []
        self.announced: set[int] = set()
        self.delivered = 0

    def judge(self) -> Iterable[Violation]:
        for number, connection in enumerate(self._client.connections):
            judge = _ConnectionJudge(connection, self._log)
            for kind, seq, detail in judge.judge():
                yield Violation(kind, seq, detail, self._client.name, number)
            self._received |= judge.received
            self.announced |= judge.announced
            self.delivered += judge.deliveries
            if self._first is None:
                self._first = judge.start
            for seq in judge.skipped():
                detail = "skipped, and no range announced"
                self._skipped.append(
                    Violation(Kind.UNANNOUNCED, seq, detail, self._client.name, number)
                )
        covered = self._received | self.announced
        yield from (skip for skip in self._skipped if skip.seq in covered)
        # Up to the last seq that a client received, a missing message is lost in any case.
        end = self._head if self._client.must_reach_head else max(covered, default=0)
        if self._first is None:
            if self._client.must_reach_head:
                yield Violation(Kind.LOST, None, "no stream was ever opened", self._client.name)
            return
        for seq in range(self._first + 1, end + 1):
            if seq not in covered:
                yield Violation(Kind.LOST, seq, "neither sent nor announced", self._client.name)


class _ConnectionJudge:
    """Judges one connection: every event in the order received."""

    def __init__(self, connection: Connection, log: dict[int, LogRow]) -> None:
        self._connection = connection
        self._log = log
        self._opened = False
        self._highest = 0
        self._sse_id = ""
        self.start: int | None = _parse_cursor(connection.cursor)
        self.received: set[int] = set()
        self.announced: set[int] = set()
        self.deliveries = 0

    def judge(self) -> Iterable[tuple[Kind, int | None, str]]:
        self._highest = self.start or 0
        for event in self._connection.events:
            if event.name in MESSAGE_EVENTS:
                yield from self._message(event)
                self._sse_id = event.event_id
                continue
            if event.name in _CURSOR_EVENTS:
                yield from self._cursor_set(event)
            elif not event.name:
                yield Kind.MISANNOUNCED, None, "a block without data"
            elif event.event_id not in ("", self._sse_id):
                yield Kind.MISANNOUNCED, None, f"{event.name} has the SSE id {event.event_id!r}"
            if event.name == "stream.open":
                yield from self._open(event)
            elif event.name == "replay.end":
                end = msgspec.json.decode(event.data, type=_ReplayEnd)
                if end.last_replayed_seq != self._highest:
                    detail = f"replay.end after {end.last_replayed_seq}, not {self._highest}"
                    yield Kind.MISANNOUNCED, end.last_replayed_seq, detail
                yield from self._announce(end.last_replayed_seq + 1, end.live_from_seq - 1)
            elif event.name == "stream.reset":
                reset = msgspec.json.decode(event.data, type=_StreamReset)
                if self.start is not None and self.start < reset.head_seq:
                    yield from self._announce(self.start + 1, reset.head_seq)
                self.start = self._highest = reset.head_seq

    def skipped(self) -> Iterable[int]:
        """Return seqs after the cursor that are below the last one received, but missing."""
        if self.start is None or not self.received:
            return ()
        covered = self.received | self.announced
        return (seq for seq in range(self.start + 1, max(self.received)) if seq not in covered)

    def _open(self, event: Event) -> Iterable[tuple[Kind, int | None, str]]:
        opened = msgspec.json.decode(event.data, type=_StreamOpen)
        self._opened = True
        sent = _parse_cursor(self._connection.cursor)
        if self._connection.cursor is None:
            self.start = self._highest = opened.head_seq
        elif sent is not None and sent <= opened.head_seq and opened.cursor != sent:
            yield Kind.MISANNOUNCED, opened.cursor, f"opened with another cursor than {sent}"
        usable = self.start is not None and self.start <= opened.head_seq
        position = str(self.start if usable else opened.head_seq)
        if self._sse_id != position:
            yield (
                Kind.MISANNOUNCED,
                None,
                f"stream.open has the id {self._sse_id!r}, not {position}",
            )

    def _cursor_set(self, event: Event) -> Iterable[tuple[Kind, int | None, str]]:
        """Take the id of a control event; that of `stream.open` is checked with its data."""
        self._sse_id = event.event_id
        wanted: str | None = event.event_id
        if event.name == "stream.reset":
            wanted = str(msgspec.json.decode(event.data, type=_StreamReset).head_seq)
        elif event.name == "stream.refused":
            wanted = (
                self._connection.cursor
                if _parse_cursor(self._connection.cursor) is not None
                else ""
            )
        if event.event_id != wanted:
            yield (
                Kind.MISANNOUNCED,
                None,
                f"{event.name} has the id {event.event_id!r}, not {wanted!r}",
            )

    def _announce(self, first: int, last: int) -> Iterable[tuple[Kind, int | None, str]]:
        announced = set(range(first, last + 1))
        both = announced & self.received
        if both:
            yield Kind.MISANNOUNCED, min(both), "sent, and announced as not sent"
        self.announced |= announced
        self._highest = max(self._highest, last)

    def _message(self, event: Event) -> Iterable[tuple[Kind, int | None, str]]:
        self.deliveries += 1
        try:
            message = log_row(event.data)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            yield Kind.CHANGED, None, f"unreadable {event.name}: {error}"
            return
        seq = message.seq
        if not self._opened:
            yield Kind.MISANNOUNCED, seq, f"{event.name} before stream.open"
        if event.event_id != str(seq):
            yield Kind.MISANNOUNCED, seq, f"its SSE id is {event.event_id!r}"
        if seq in self.received:
            yield Kind.REPEATED, seq, "a second time on this connection"
        elif seq in self.announced:
            yield Kind.MISANNOUNCED, seq, "sent after it was announced as not sent"
        elif seq <= (self.start or 0):
            yield Kind.REPEATED, seq, f"the connection's cursor was {self.start}"
        elif seq <= self._highest:
            yield Kind.REORDERED, seq, f"after {self._highest}"
        self._highest = max(self._highest, seq)
        self.received.add(seq)
        row = self._log.get(seq)
        if row is None:
            yield Kind.INVENTED, seq, "received, and not in the log"
        elif row.data != event.data and _canonical(row.data) != _canonical(event.data):
            yield Kind.CHANGED, seq, "received with another content than the log has"


def _parse_cursor(cursor: str | None) -> int | None:
    """Return a cursor's seq, or None when it is absent or not a number."""
    if cursor is None or not (cursor.isascii() and cursor.isdigit()):
        return None
    return int(cursor)


def _canonical(data: bytes) -> bytes:
    # Ignores the order of keys and JSON's escapes; every code point of a string still counts.
    return msgspec.json.encode(msgspec.json.decode(data), order="sorted")
