"""What blocks of a stream mean for a cursor: docs/protocol.md §6, on literal blocks."""

from __future__ import annotations

import msgspec
import pytest

from service.client.block_parser import Block
from service.client.client_errors import ProtocolViolation
from service.client.client_events import Event, Message
from service.client.position import Ending, Gap, Position, ending_of


def _message(seq: int, name: str = "message.new") -> Block:
    data = {
        "seq": seq,
        "messageId": f"m{seq}",
        "client_msg_id": None,
        "projectId": "p",
        "userId": "u",
        "content": {"text": f"t{seq}", "type": "user", "mode": "chat", "actor_type": "client"},
        "timestamp": "2026-01-01T00:00:00.000000Z",
        "metadata": {"build_id": None, "response_data": None},
    }
    return Block(name, msgspec.json.encode(data), str(seq))


def _block(name: str, own_id: str | None = None, **data: object) -> Block:
    return Block(name, msgspec.json.encode(data), own_id)


def _take(position: Position, *blocks: Block) -> list[object]:
    """Return gaps and events in order, as a follower that fetches every gap hands them on."""
    taken: list[object] = []
    for block in blocks:
        incoming = position.read(block)
        if incoming.gap is not None:
            taken.append(incoming.gap)
        if incoming.cursor is not None:
            position.cursor = incoming.cursor
        if isinstance(incoming.event, Message):
            taken.append(incoming.event.seq)
        elif incoming.event is not None:
            taken.append(incoming.event.name)
    return taken


def test_messages_in_order_are_handed_on() -> None:
    """The cursor is that of the last one."""
    position = Position(after=4, tail=None)
    assert _take(position, _message(5, "message.replay"), _message(6)) == [5, 6]
    assert position.headers == {"Last-Event-ID": "6"}


def test_a_repeated_message_is_left_out() -> None:
    """Each message once, whatever a reconnect repeats."""
    position = Position(after=0, tail=None)
    assert _take(position, _message(1), _message(2), _message(1), _message(2)) == [1, 2]


def test_an_announced_gap_comes_before_what_follows() -> None:
    """`replay.end`: the range is between the last message and the next."""
    position = Position(after=0, tail=None)
    end = _block("replay.end", lastReplayedSeq=1, liveFromSeq=9)
    assert _take(position, _message(1), end, _message(9)) == [1, Gap(1, 9), "replay.end", 9]


def test_a_gap_that_nobody_announced_is_fetched_too() -> None:
    """A faulty peer loses nothing either."""
    position = Position(after=0, tail=None)
    assert _take(position, _message(1), _message(4)) == [1, Gap(1, 4), 4]


def test_without_a_cursor_it_begins_at_the_head() -> None:
    """An early reconnect asks for what came after the opening."""
    position = Position(after=None, tail=None)
    assert position.headers == {}
    assert _take(position, _block("stream.open", "7", headSeq=7, cursor=None)) == ["stream.open"]
    assert position.headers == {"Last-Event-ID": "7"}
    assert _take(position, _message(9)) == [Gap(7, 9), 9]


def test_an_opening_does_not_move_a_cursor() -> None:
    """The head of a later connection says nothing of what was received."""
    position = Position(after=3, tail=None)
    _take(position, _block("stream.open", "3", headSeq=70, cursor=3))
    assert position.headers == {"Last-Event-ID": "3"}


def test_the_newest_messages_are_asked_for_until_one_is_there() -> None:
    """`tail=`: a connection that is cut before its first message must not end at the head."""
    position = Position(after=None, tail=10)
    assert position.query == {"tail": "10"}
    _take(position, _block("stream.open", "70", headSeq=70, cursor=None))
    assert (position.query, position.headers) == ({"tail": "10"}, {})
    _take(position, _message(61, "message.replay"))
    assert (position.query, position.headers) == ({}, {"Last-Event-ID": "61"})


def test_an_empty_project_has_no_newest_messages() -> None:
    """`tail=` on an empty project: the cursor is known once the stream is live."""
    position = Position(after=None, tail=10)
    opened = _block("stream.open", "0", headSeq=0, cursor=None)
    _take(position, opened, _block("stream.live", headSeq=1))
    assert position.headers == {"Last-Event-ID": "0"}


def test_a_reset_sets_the_cursor_back_and_is_handed_on() -> None:
    """After a restored log, the head is below the cursor."""
    position = Position(after=50, tail=None)
    reset = _block("stream.reset", "20", headSeq=20, reason="cursor_ahead")
    assert _take(position, reset, _message(21)) == ["stream.reset", 21]


def test_a_change_counts_as_a_message() -> None:
    """An event with an id of its own has a place in the order."""
    position = Position(after=1, tail=None)
    change = _block("message.edited", "2", seq=2, targetSeq=1)
    assert _take(position, change, change, _message(3)) == ["message.edited", 3]


def test_a_repeated_entry_is_left_out() -> None:
    """G6: what is in the window comes again at a reconnect; `entryId` tells."""
    position = Position(after=1, tail=None)
    status = _block("build.status", entryId="1-1", status="queued")
    other = _block("build.status", entryId="1-2", status="completed")
    assert _take(position, status, other, status) == ["build.status", "build.status"]


def test_ephemeral_events_are_all_handed_on() -> None:
    """Without an `entryId` nothing is a repeat."""
    position = Position(after=1, tail=None)
    typing = _block("typing.start", userId="u")
    assert _take(position, typing, typing) == ["typing.start", "typing.start"]


def test_a_block_without_data_is_nothing() -> None:
    """Older services primed with one."""
    position = Position(after=1, tail=None)
    assert _take(position, Block("", b"", "9", 1000)) == []
    assert position.headers == {"Last-Event-ID": "1"}


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"seq":"1"}', b'{"seq":1}'])
def test_a_message_of_another_form_is_a_violation(data: bytes) -> None:
    """No exception of the JSON library reaches the caller."""
    with pytest.raises(ProtocolViolation):
        Position(after=0, tail=None).read(Block("message.new", data, "1"))


def test_an_event_keeps_its_json() -> None:
    """Data that no struct describes."""
    event = Position(after=0, tail=None).read(_block("typing.start", userId="u")).event
    assert event == Event("typing.start", b'{"userId":"u"}')
    assert event.data == {"userId": "u"}


@pytest.mark.parametrize(
    ("block", "ending"),
    [
        (
            Block("stream.closing", b'{"reason":"shutdown","reconnect":true}', None, 1200),
            Ending("shutdown", True, 1.2),
        ),
        (
            Block("stream.closing", b'{"reason":"token_expired","reconnect":false}'),
            Ending("token_expired", False),
        ),
        (
            Block("stream.refused", b'{"code":"RATE_LIMITED","retryAfterMs":5000}', "3", 5000),
            Ending("RATE_LIMITED", True, 5.0),
        ),
        (Block("heartbeat", b"{}"), None),
    ],
)
def test_the_services_last_word_is_read(block: Block, ending: Ending | None) -> None:
    """`stream.closing` and `stream.refused` say whether and when to come back."""
    assert ending_of(block) == ending
