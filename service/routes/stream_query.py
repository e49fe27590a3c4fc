"""What a request for a stream asks for: its cursor, `tail` and `heartbeat`. Pure.

docs/protocol.md §6. Whether a cursor is usable, which the log decides, is in `stream.py`.
"""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import parse_qsl

import msgspec

from service.http.api_errors import FieldError, validation_failed

# The first that is not empty counts. What names the last event comes before `from_seq`: a client
# that reconnects repeats its old URL.
_CURSOR_NAMES = ("lastEventId", "last_event_id", "from_seq")
_MAX_TAIL = 200
_HEARTBEAT_S = (2, 60)


class StreamQuery(msgspec.Struct, frozen=True):
    """How a stream begins and how often it says that it is alive.

    `cursor` is the text of the client's cursor, "" for none; `tail` is how many of the newest
    messages come first when there is no cursor; `heartbeat_s` is None for the service's interval.
    """

    cursor: str
    tail: int | None
    heartbeat_s: float | None


def read_stream_query(headers: Iterable[tuple[bytes, bytes]], query: bytes) -> StreamQuery:
    """Read the headers (ASGI) and the raw query string of a request for a stream.

    Raises:
        ApiError: 400 naming `tail` or `heartbeat`.
    """
    given = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    # Of several headers the last: a client that sets its own adds it to the browser's.
    sent = [value for name, value in headers if name == b"last-event-id" and value]
    cursor = sent[-1].decode("latin-1") if sent else ""
    for name in _CURSOR_NAMES:
        cursor = cursor or given.get(name, "")
    return StreamQuery(
        cursor,
        _whole_number(given, "tail", 1, _MAX_TAIL),
        _whole_number(given, "heartbeat", *_HEARTBEAT_S),
    )


def _whole_number(given: dict[str, str], name: str, least: int, most: int) -> int | None:
    text = given.get(name, "")
    if not text:
        return None
    # At most three digits: a longer text is not converted.
    if not (len(text) <= 3 and text.isascii() and text.isdigit() and least <= int(text) <= most):
        raise validation_failed(FieldError(name, f"must be a whole number from {least} to {most}"))
    return int(text)
