"""The verdict accepts a whole history and names what is wrong in any other.

Hand-made histories that break one rule each: a verdict that cannot fail says nothing.
"""

from __future__ import annotations

import json

import pytest

from tests.clients.reading import Reading
from tests.clients.records import Sent, Surfaced
from tests.clients.verdict import Kind, judge

READING = Reading(
    message_events=frozenset({"message.new", "message.replay"}),
    text="content.text",
    number="seq",
    id_is_number=True,
)
SENT = [Sent(f"text {number}", number) for number in range(1, 7)]


def _event(number: int, *, text: str | None = None, event_id: str | None = None) -> Surfaced:
    data = {"seq": number, "content": {"text": text or f"text {number}"}}
    return Surfaced("message.new", event_id or str(number), json.dumps(data))


def _events(*numbers: int) -> list[Surfaced]:
    return [_event(number) for number in numbers]


def _kinds(events: list[Surfaced], **more: list[Sent]) -> list[Kind]:
    return [fault.kind for fault in judge(SENT, events, READING, **more)]


WHOLE = _events(*range(1, 7))


def test_a_whole_history_is_accepted() -> None:
    """Every message once and in order; control events with data and without an id between."""
    control = [Surfaced("stream.open", "0", '{"headSeq":0}'), Surfaced("heartbeat", "3", "{}")]
    assert _kinds([*control, *WHOLE[:3], Surfaced("stream.live", None, "{}"), *WHOLE[3:]]) == []


def test_a_client_that_surfaces_no_ids_is_accepted() -> None:
    """Not every client hands the id on; the data has the number."""
    for nothing in (None, ""):
        events = [Surfaced(event.event, nothing, event.data) for event in WHOLE]
        assert _kinds(events) == []


BROKEN: dict[str, tuple[Kind, list[Surfaced]]] = {
    "the last": (Kind.LOST, WHOLE[:-1]),
    "one between": (Kind.LOST, [*WHOLE[:2], *WHOLE[3:]]),
    "everything": (Kind.LOST, []),
    "the last twice": (Kind.REPEATED, [*WHOLE, WHOLE[-1]]),
    "a replay from too early": (Kind.REPEATED, [*WHOLE[:3], *WHOLE]),
    "two exchanged": (Kind.REORDERED, _events(2, 1, 3, 4, 5, 6)),
    "another text": (Kind.CHANGED, [_event(1, text="text 1 "), *WHOLE]),
    "another number": (Kind.CHANGED, [*WHOLE[:5], _event(9, text="text 6", event_id="6")]),
    "another id": (Kind.WRONG_ID, [*WHOLE[:5], _event(6, event_id="5")]),
    "an empty event": (Kind.EMPTY, [Surfaced("message", "0", ""), *WHOLE]),
    "an event without data": (Kind.EMPTY, [Surfaced("message", None, None), *WHOLE]),
    "an empty message": (Kind.EMPTY, [Surfaced("message.new", "3", ""), *WHOLE]),
    "half a message": (Kind.UNREADABLE, [Surfaced("message.new", "1", '{"seq":1,'), *WHOLE]),
    "no text": (Kind.UNREADABLE, [Surfaced("message.new", "1", '{"seq":1}'), *WHOLE]),
    "half a control event": (Kind.UNREADABLE, [Surfaced("stream.open", "0", "{"), *WHOLE]),
    "an error": (Kind.ERROR, [Surfaced("error", None, "{}"), *WHOLE]),
}


@pytest.mark.parametrize("name", BROKEN)
def test_each_fault_is_found_and_named(name: str) -> None:
    """One fault in a history gives that kind, and no other."""
    kind, events = BROKEN[name]
    assert set(_kinds(events)) == {kind}


def test_a_range_from_the_history_stands_for_what_was_not_sent() -> None:
    """The rest of the stream and the fetched range make the whole."""
    assert _kinds(_events(1, 2, 6), fetched=SENT[2:5]) == []


def test_a_range_that_leaves_a_hole_is_found() -> None:
    """A range that is too short is a loss."""
    assert _kinds(_events(1, 2, 6), fetched=SENT[2:4]) == [Kind.LOST]


def test_a_range_that_was_also_sent_is_found() -> None:
    """What is announced as not sent must not be sent as well."""
    assert _kinds(WHOLE, fetched=SENT[2:3]) == [Kind.REPEATED]


def test_a_history_that_differs_is_found() -> None:
    """The history has the messages that were posted."""
    assert Kind.CHANGED in _kinds(_events(1, 2, 4, 5, 6), fetched=[Sent("another", 3)])


def test_data_without_an_encoding_is_the_text() -> None:
    """Another service may send bare texts without numbers; events are unnamed or `message`."""
    reading = Reading(message_events=frozenset({"message"}))
    sent = [Sent("one"), Sent("two")]
    events = [Surfaced(None, None, "one"), Surfaced("message", "x-7", "two")]
    assert judge(sent, events, reading) == []
    assert [fault.kind for fault in judge(sent, events[:1], reading)] == [Kind.LOST]


def test_a_long_text_is_named_in_short() -> None:
    """A verdict of 64 KiB texts stays readable."""
    (fault,) = judge([Sent("\x01" * 65_536, 1)], [], READING)
    assert len(str(fault)) < 300
