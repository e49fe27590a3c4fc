"""How a message is found in an event: which events are messages, where number and text stand.

Pure. Another service is described by another `Reading`; nothing here knows seqstream's events.
"""

from __future__ import annotations

from typing import Any

import msgspec

from tests.clients.records import Surfaced


class Unreadable(Exception):
    """A message's event whose data is not as the reading says."""


class Message(msgspec.Struct, frozen=True):
    """A message as a client got it."""

    text: str
    number: int | None


class Reading(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The form of a service's events.

    `text` and `number` are dotted paths in the data (`content.text`). Without `text` the data is
    the text, and no event's data needs to be JSON; without `number` messages are known by their
    text alone. With `id_is_number` the SSE id of a message is its number.
    """

    message_events: frozenset[str]
    text: str | None = None
    number: str | None = None
    id_is_number: bool = False

    def is_message(self, event: Surfaced) -> bool:
        """Tell whether an event is a message."""
        return (event.event or "message") in self.message_events

    def message(self, event: Surfaced) -> Message:
        """Read a message's event. Raises Unreadable."""
        data = event.data or ""
        if self.text is None:
            return Message(data, None)
        try:
            decoded = msgspec.json.decode(data)
        except msgspec.DecodeError as error:
            raise Unreadable(f"data is not JSON: {error}") from None
        text = at_path(decoded, self.text)
        number = None if self.number is None else at_path(decoded, self.number)
        if not isinstance(text, str) or not isinstance(number, int | None):
            raise Unreadable(f"no text at {self.text}, or no number at {self.number}")
        return Message(text, number)


def at_path(decoded: Any, path: str) -> Any:
    """Return what stands at a dotted path of decoded JSON; None if nothing does."""
    for name in path.split("."):
        decoded = decoded.get(name) if isinstance(decoded, dict) else None
    return decoded
