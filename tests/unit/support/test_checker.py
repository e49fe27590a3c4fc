"""The checker of messages accepts correct histories and reports the right violation of others.

Hand-made histories that break one rule each, then random correct histories with one mutation.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.checker import Report, check
from tests.support.history import (
    Acknowledgement,
    ClientHistory,
    Connection,
    Event,
    LogRow,
    Post,
    log_row,
)
from tests.support.violations import Kind


def _post(seq: int) -> Post:
    return Post("p", "w", f"c{seq}", f"text {seq}")


def _data(seq: int, *, text: str | None = None, message_id: str | None = None) -> bytes:
    return msgspec.json.encode(
        {
            "seq": seq,
            "messageId": message_id or f"m{seq}",
            "client_msg_id": f"c{seq}",
            "userId": "w",
            "content": {"text": text or f"text {seq}"},
        }
    )


def _log(head: int) -> list[LogRow]:
    return [log_row(_data(seq)) for seq in range(1, head + 1)]


def _ack(seq: int, *, post: int | None = None, message_id: str | None = None) -> Acknowledgement:
    return Acknowledgement(_post(post or seq), seq, message_id or f"m{seq}", False, 0.0)


def _new(seq: int, *, event_id: str | None = None, data: bytes | None = None) -> Event:
    return Event("message.new", event_id or str(seq), data or _data(seq))


def _news(*seqs: int) -> list[Event]:
    return [_new(seq) for seq in seqs]


def _open(head: int, cursor: int | None = None) -> Event:
    start = head if cursor is None else cursor
    return Event(
        "stream.open", str(start), msgspec.json.encode({"headSeq": head, "cursor": cursor})
    )


def _replay_end(last: int, live_from: int) -> Event:
    data = {"lastReplayedSeq": last, "liveFromSeq": live_from, "hasMore": True}
    return Event("replay.end", "", msgspec.json.encode(data))


def _reset(head: int, reason: str = "invalid_cursor") -> Event:
    return Event(
        "stream.reset", str(head), msgspec.json.encode({"headSeq": head, "reason": reason})
    )


def _connection(cursor: str | None, *events: Event) -> Connection:
    return Connection(cursor, events)


def _judge(
    connections: Sequence[Connection],
    *,
    head: int = 5,
    log: Sequence[LogRow] | None = None,
    acks: Sequence[Acknowledgement] | None = None,
    must_reach_head: bool = True,
) -> Report:
    return check(
        posts=[_post(seq) for seq in range(1, head + 1)],
        acknowledgements=[_ack(seq) for seq in range(1, head + 1)] if acks is None else acks,
        clients=[ClientHistory("a", "p", tuple(connections), must_reach_head)],
        log=_log(head) if log is None else log,
    )


def _kinds(report: Report) -> list[Kind]:
    return [violation.kind for violation in report.violations]


GOOD: dict[str, list[Connection]] = {
    "from the beginning": [_connection("0", _open(0, 0), *_news(1, 2, 3, 4, 5))],
    "live from head": [_connection(None, _open(2), *_news(3, 4, 5))],
    "reconnected with its cursor": [
        _connection("0", _open(0, 0), *_news(1, 2)),
        _connection("2", _open(4, 2), *_news(3, 4, 5)),
    ],
    "reconnected with an older cursor": [
        _connection("0", _open(0, 0), *_news(1, 2, 3)),
        _connection("1", _open(4, 1), *_news(2, 3, 4, 5)),
    ],
    "a range announced by replay.end": [
        _connection("0", _open(4, 0), *_news(1, 2), _replay_end(2, 5), *_news(5)),
    ],
    "a range announced by stream.reset": [
        _connection("0", _open(0, 0), *_news(1)),
        _connection("1", _open(3, 1), _reset(3), *_news(4, 5)),
    ],
    "garbage as cursor": [_connection("x-1", _open(3), _reset(3), *_news(4, 5))],
    "a cursor beyond head": [
        _connection("9", _open(3), _reset(3, "cursor_ahead"), *_news(4, 5)),
    ],
    "a connection that ended before its first event": [
        _connection("0"),
        _connection("0", _open(0, 0), *_news(1, 2, 3, 4, 5)),
    ],
    "other events in between": [
        _connection(
            "4", _open(4, 4), Event("heartbeat", "", b"{}"), *_news(5), Event("x", "", b"?")
        ),
    ],
    "ids that stay": [
        _connection("4", _open(4, 4), Event("x", "4", b"?"), *_news(5), Event("x", "5", b"?")),
        _connection(None, _open(5), Event("x", "5", b"?")),
    ],
    "refused with its cursor": [
        _connection("4", Event("stream.refused", "4", b"{}")),
        _connection(None, Event("stream.refused", "", b"{}")),
        _connection("4", _open(4, 4), *_news(5)),
    ],
    "JSON spelled in another way": [
        _connection(
            "4",
            _open(4, 4),
            _new(5, data=msgspec.json.format(_data(5)).replace(b"text", rb"\u0074ext")),
        )
    ],
}


@pytest.mark.parametrize("connections", GOOD.values(), ids=GOOD.keys())
def test_a_correct_history_passes(connections: list[Connection]) -> None:
    """G3: every message exactly once and in order, or announced as not sent."""
    report = _judge(connections)
    assert report.ok, str(report)


BAD_STREAMS: dict[str, tuple[Kind, list[Connection]]] = {
    "one in the middle never came": (
        Kind.LOST,
        [_connection("0", _open(0, 0), *_news(1, 2, 4, 5))],
    ),
    "the first after the cursor never came": (
        Kind.LOST,
        [_connection("1", _open(1, 1), *_news(3, 4, 5))],
    ),
    "the last never came": (Kind.LOST, [_connection("0", _open(0, 0), *_news(1, 2, 3, 4))]),
    "one was lost while reconnecting": (
        Kind.LOST,
        [
            _connection("0", _open(0, 0), *_news(1, 2)),
            _connection("3", _open(3, 3), *_news(4, 5)),
        ],
    ),
    "a range announced one too short": (
        Kind.LOST,
        [_connection("0", _open(4, 0), *_news(1, 2), _replay_end(2, 4), *_news(5))],
    ),
    "nothing was ever opened": (Kind.LOST, [_connection(None)]),
    "skipped in silence, though it came on the next connection": (
        Kind.UNANNOUNCED,
        [
            _connection("0", _open(0, 0), *_news(1, 3)),
            _connection("1", _open(3, 1), *_news(2, 3, 4, 5)),
        ],
    ),
    "the same one twice": (
        Kind.REPEATED,
        [_connection("0", _open(0, 0), *_news(1, 2, 2, 3, 4, 5))],
    ),
    "the cursor's own message again": (
        Kind.REPEATED,
        [_connection("2", _open(2, 2), *_news(2, 3, 4, 5))],
    ),
    "head's own message for a live stream": (
        Kind.REPEATED,
        [_connection(None, _open(2), *_news(2, 3, 4, 5))],
    ),
    "two changed places": (
        Kind.REORDERED,
        [_connection("0", _open(0, 0), *_news(1, 3, 2, 4, 5))],
    ),
    "another text": (
        Kind.CHANGED,
        [_connection("4", _open(4, 4), _new(5, data=_data(5, text="text 5 ")))],
    ),
    "another message id": (
        Kind.CHANGED,
        [_connection("4", _open(4, 4), _new(5, data=_data(5, message_id="m6")))],
    ),
    "a message that the log does not have": (
        Kind.INVENTED,
        [_connection("4", _open(4, 4), *_news(5, 6))],
    ),
    "an SSE id that is not its seq": (
        Kind.MISANNOUNCED,
        [_connection("4", _open(4, 4), _new(5, event_id="4"))],
    ),
    "no SSE id": (
        Kind.MISANNOUNCED,
        [_connection("4", _open(4, 4), Event("message.new", "", _data(5)))],
    ),
    "stream.open with an id that is not the cursor": (
        Kind.MISANNOUNCED,
        [_connection("4", msgspec.structs.replace(_open(4, 4), event_id="3"), *_news(5))],
    ),
    "stream.open without an id": (
        Kind.MISANNOUNCED,
        [_connection(None, msgspec.structs.replace(_open(4), event_id=""), *_news(5))],
    ),
    "stream.reset with an id that is not the head": (
        Kind.MISANNOUNCED,
        [_connection("x", _open(4), msgspec.structs.replace(_reset(4), event_id="3"), *_news(5))],
    ),
    "stream.refused without the cursor": (
        Kind.MISANNOUNCED,
        [
            _connection("4", Event("stream.refused", "", b"{}")),
            _connection("4", _open(4, 4), *_news(5)),
        ],
    ),
    "a block without data": (
        Kind.MISANNOUNCED,
        [_connection("4", _open(4, 4), Event("", "4", b""), *_news(5))],
    ),
    "an SSE id on another event": (
        Kind.MISANNOUNCED,
        [_connection("4", _open(4, 4), *_news(5), Event("build.status", "5-1", b"{}"))],
    ),
    "a message before stream.open": (
        Kind.MISANNOUNCED,
        [_connection("4", _new(5), _open(5, 4))],
    ),
    "replay.end does not meet the last replayed": (
        Kind.MISANNOUNCED,
        [_connection("0", _open(4, 0), *_news(1, 2, 3), _replay_end(2, 5), *_news(5))],
    ),
    "sent after it was announced as not sent": (
        Kind.MISANNOUNCED,
        [_connection("0", _open(4, 0), *_news(1, 2), _replay_end(2, 5), *_news(4, 5))],
    ),
    "stream.open repeats another cursor": (
        Kind.MISANNOUNCED,
        [_connection("3", _open(3, 2), *_news(4, 5))],
    ),
}


@pytest.mark.parametrize(("kind", "connections"), BAD_STREAMS.values(), ids=BAD_STREAMS.keys())
def test_a_broken_stream_fails_for_one_reason(kind: Kind, connections: list[Connection]) -> None:
    """G3: every wrong stream is reported, with its own kind of violation only."""
    assert set(_kinds(_judge(connections))) == {kind}


def _whole() -> list[Connection]:
    return [_connection(None, _open(5))]


def _without(log: list[LogRow], seq: int) -> list[LogRow]:
    return [row for row in log if row.seq != seq]


BAD_LOGS: dict[str, tuple[Kind, list[LogRow], list[Acknowledgement]]] = {
    "a hole": (
        Kind.LOG_HOLE,
        _without(_log(5), 3),
        [_ack(seq) for seq in (1, 2, 4, 5)],
    ),
    "a row twice": (Kind.LOG_REPEAT, [*_log(5), _log(5)[4]], [_ack(5)]),
    "one post under two seqs": (
        Kind.LOG_REPEAT,
        [*_log(4), msgspec.structs.replace(_log(1)[0], seq=5, message_id="m5")],
        [_ack(1)],
    ),
    "a row that nobody posted": (
        Kind.INVENTED,
        [*_log(4), msgspec.structs.replace(_log(5)[4], client_msg_id="other")],
        [_ack(4)],
    ),
    "another text than was posted": (
        Kind.CHANGED,
        [*_log(4), log_row(_data(5, text="TEXT 5"))],
        [_ack(5)],
    ),
    "acknowledged and not there": (Kind.ACK_MISSING, _log(4), [_ack(5)]),
    "acknowledged twice with two seqs": (Kind.ACK_TWICE, _log(5), [_ack(2), _ack(3, post=2)]),
    "acknowledged twice with two ids": (
        Kind.ACK_TWICE,
        _log(5),
        [_ack(2), _ack(2, message_id="m9")],
    ),
    "acknowledged with another seq": (Kind.ACK_WRONG, _log(5), [_ack(3, post=2)]),
    "acknowledged with another id": (Kind.ACK_WRONG, _log(5), [_ack(2, message_id="m9")]),
}


@pytest.mark.parametrize(("kind", "log", "acks"), BAD_LOGS.values(), ids=BAD_LOGS.keys())
def test_a_broken_log_fails_for_one_reason(
    kind: Kind, log: list[LogRow], acks: list[Acknowledgement]
) -> None:
    """G1, G5: a wrong log or acknowledgement is reported, with its own kind of violation only."""
    assert _kinds(_judge(_whole(), log=log, acks=acks)) == [kind]


def test_posts_without_an_answer_may_or_may_not_be_in_the_log() -> None:
    """G5: a post whose answer was lost is not acknowledged, but its row may be in the log."""
    assert _judge(_whole(), acks=[]).ok
    assert _judge([_connection(None, _open(4))], log=_log(4), acks=[]).ok


def test_a_repeat_with_the_first_result_is_right() -> None:
    """G5: a repeated post gets the first result."""
    assert _judge(_whole(), acks=[_ack(2), _ack(2)]).ok


def test_a_client_closed_early_is_judged_up_to_its_last_message() -> None:
    """A stalled client need not reach head, but must not miss a message before its last one."""
    assert _judge([_connection("0", _open(0, 0), *_news(1, 2))], must_reach_head=False).ok
    report = _judge([_connection("0", _open(0, 0), *_news(1, 3))], must_reach_head=False)
    assert _kinds(report) == [Kind.LOST]


# Random correct histories, and mutations that make one thing wrong.


@st.composite
def _histories(draw: st.DrawFn) -> tuple[int, list[Connection]]:
    """A head, and a client that was cut, reconnected with old cursors, and got announced gaps."""
    head = draw(st.integers(4, 30))
    rng = random.Random(draw(st.integers(0, 2**32)))
    cursor = 0
    connections: list[Connection] = []
    while cursor < head:
        stop = rng.randint(cursor + 1, head)
        replayed = rng.randint(cursor, stop)
        events = [_open(rng.randint(cursor, stop), cursor)]
        events += [
            Event("message.replay", str(seq), _data(seq)) for seq in range(cursor + 1, replayed + 1)
        ]
        if rng.random() < 0.2 and replayed + 1 < stop:
            live_from = rng.randint(replayed + 2, stop)
            events.append(_replay_end(replayed, live_from))
            replayed = live_from - 1
        events += _news(*range(replayed + 1, stop + 1))
        connections.append(_connection(str(cursor), *events))
        cursor = stop if rng.random() < 0.8 else rng.randint(cursor, stop)
    return head, connections


def _messages(connections: Sequence[Connection]) -> list[tuple[int, int]]:
    """Return the position of each message event: its connection's number and its index there."""
    return [
        (number, place)
        for number, connection in enumerate(connections)
        for place, event in enumerate(connection.events)
        if event.name.startswith("message.")
    ]


def _drop(events: list[Event], place: int, rng: random.Random) -> None:
    if any(event.name == "message.new" for event in events[place + 1 :]):
        del events[place]
    else:
        # The last message of a connection may be missing: the next connection has it.
        _repeat(events, place, rng)


def _repeat(events: list[Event], place: int, rng: random.Random) -> None:
    events.insert(rng.randint(place + 1, len(events)), events[place])


def _change(events: list[Event], place: int, rng: random.Random) -> None:
    data = bytearray(events[place].data)
    spot = data.index(b"text ") + rng.randrange(5)
    data[spot] ^= 1
    events[place] = msgspec.structs.replace(events[place], data=bytes(data))


def _invent(events: list[Event], place: int, rng: random.Random) -> None:
    seq = 1000 + rng.randrange(1000)
    events.insert(rng.randint(place + 1, len(events)), _new(seq))


def _swap(events: list[Event], place: int, rng: random.Random) -> None:
    later = [
        other
        for other, event in enumerate(events)
        if other > place and event.name.startswith("message.")
    ]
    if later:
        other = rng.choice(later)
        events[place], events[other] = events[other], events[place]
    else:
        _repeat(events, place, rng)


Mutation = Callable[[list[Event], int, random.Random], None]


@given(history=_histories())
def test_random_correct_histories_pass(history: tuple[int, list[Connection]]) -> None:
    """G3 holds for any cuts, cursors and announced ranges."""
    head, connections = history
    report = _judge(connections, head=head)
    assert report.ok, str(report)


@pytest.mark.parametrize("mutate", [_drop, _repeat, _swap, _change, _invent])
@given(history=_histories(), seed=st.integers(0, 2**32))
def test_one_mutation_is_found(
    mutate: Mutation, history: tuple[int, list[Connection]], seed: int
) -> None:
    """A history with one thing wrong is always reported."""
    head, connections = history
    rng = random.Random(seed)
    number, place = rng.choice(_messages(connections))
    events = list(connections[number].events)
    mutate(events, place, rng)
    connections[number] = Connection(connections[number].cursor, tuple(events))
    assert not _judge(connections, head=head).ok
