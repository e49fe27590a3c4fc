"""Judge what a client surfaced: every message once, in order, as it was posted, and nothing else.

Pure: no I/O and no clock. It knows neither the service nor the client. The texts of one history
differ from each other, so that a message can be told by its text when its number is damaged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import StrEnum

import msgspec

from tests.clients.reading import Reading, Unreadable
from tests.clients.records import Sent, Surfaced

_SHOWN_CHARACTERS = 40


class Kind(StrEnum):
    """What can be wrong."""

    LOST = "lost"  # posted, and never surfaced
    REPEATED = "repeated"  # surfaced twice
    REORDERED = "reordered"  # surfaced after a later message
    CHANGED = "changed"  # a text or a number that was not posted
    WRONG_ID = "wrong id"  # an id that is not the message's
    EMPTY = "empty"  # an event without data
    UNREADABLE = "unreadable"  # data that is not what the service sends
    ERROR = "error"  # the client surfaced an event named `error`


class Fault(msgspec.Struct, frozen=True):
    """One thing that is wrong."""

    kind: Kind
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


def judge(
    sent: Sequence[Sent],
    surfaced: Sequence[Surfaced],
    reading: Reading,
    *,
    fetched: Sequence[Sent] = (),
) -> list[Fault]:
    """Return what is wrong, in the order of the events, and then what is missing.

    `sent` is everything that the client had to get, in order. `fetched` was read from the
    service's history because the stream said that it would not send it.
    """
    places = {message.text: place for place, message in enumerate(sent)}
    assert len(places) == len(sent), "two messages with one text"
    faults: list[Fault] = []
    seen: set[int] = set()
    highest = -1
    for event in surfaced:
        faults += _form(event, reading)
        if not event.data or not reading.is_message(event):
            continue
        try:
            message = reading.message(event)
        except Unreadable as error:
            faults.append(Fault(Kind.UNREADABLE, f"{event.event} {event.id}: {error}"))
            continue
        place = places.get(message.text)
        if place is None:
            faults.append(Fault(Kind.CHANGED, f"{_shown(message.text)} was not posted"))
            continue
        faults += _numbers(event, message.number, sent[place], reading)
        if place in seen:
            faults.append(Fault(Kind.REPEATED, _name(sent[place])))
        elif place < highest:
            faults.append(Fault(Kind.REORDERED, _name(sent[place])))
        seen.add(place)
        highest = max(highest, place)
    return faults + list(_missing(sent, seen, places, fetched))


def _form(event: Surfaced, reading: Reading) -> Iterator[Fault]:
    """Check what holds for every event, messages or not."""
    if event.event == "error":
        yield Fault(Kind.ERROR, _shown(event.data or ""))
    elif not event.data:
        yield Fault(Kind.EMPTY, f"event {event.event!r} with id {event.id!r} has no data")
    elif reading.text is not None and not reading.is_message(event):
        try:
            msgspec.json.decode(event.data)
        except msgspec.DecodeError as error:
            yield Fault(Kind.UNREADABLE, f"{event.event}: {error}: {_shown(event.data)}")


def _numbers(event: Surfaced, number: int | None, sent: Sent, reading: Reading) -> Iterator[Fault]:
    if reading.number is not None and number != sent.number:
        yield Fault(Kind.CHANGED, f"{_name(sent)} came with the number {number}")
    if reading.id_is_number and event.id and event.id != str(sent.number):
        yield Fault(Kind.WRONG_ID, f"{_name(sent)} came with the id {event.id!r}")


def _missing(
    sent: Sequence[Sent], seen: set[int], places: dict[str, int], fetched: Sequence[Sent]
) -> Iterator[Fault]:
    from_history = set()
    for message in fetched:
        place = places.get(message.text)
        if place is None or sent[place].number != message.number:
            yield Fault(Kind.CHANGED, f"the history has {_name(message)}, which was not posted")
        elif place in seen:
            yield Fault(Kind.REPEATED, f"{_name(message)} was sent, and announced as not sent")
        else:
            from_history.add(place)
    for place, message in enumerate(sent):
        if place not in seen and place not in from_history:
            yield Fault(Kind.LOST, _name(message))


def _name(message: Sent) -> str:
    number = "message" if message.number is None else f"message {message.number}"
    return f"{number} ({_shown(message.text)})"


def _shown(text: str) -> str:
    end = "" if len(text) <= _SHOWN_CHARACTERS else f"… {len(text)} characters"
    return ascii(text[:_SHOWN_CHARACTERS]) + end
