"""The requests that clients sent: what each named as the last event that it has.

Pure: it is fed the bytes of one connection. Only requests without a body are expected.
"""

from __future__ import annotations

from urllib.parse import parse_qsl, urlsplit

import msgspec

_HEAD_BYTES = 65_536
_CURSOR_PARAMETERS = ("lastEventId", "last_event_id")


class Request(msgspec.Struct, frozen=True):
    """One request. `cursor` is what it says of the last event, None when it says nothing."""

    method: str
    path: str
    cursor: str | None
    said_by: str | None
    accept: str | None

    def __str__(self) -> str:
        cursor = "no cursor" if self.said_by is None else f"{self.said_by}: {self.cursor}"
        return f"{self.method} with {cursor}"


class RequestReader:
    """Collects the heads of one connection's requests."""

    def __init__(self) -> None:
        self._head = bytearray()

    def feed(self, data: bytes) -> list[Request]:
        """Take the next bytes; return the requests whose heads ended in them."""
        self._head += data
        found = []
        while (end := self._head.find(b"\r\n\r\n")) >= 0:
            found.append(read_head(bytes(self._head[:end])))
            del self._head[: end + 4]
        assert len(self._head) <= _HEAD_BYTES, "a request's head without an end"
        return found


def read_head(head: bytes) -> Request:
    """Read a request's head. Credentials are not kept."""
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, *_ = [*first.split(" "), "", ""]
    fields = [(name.strip().lower(), value.strip()) for name, _, value in
              (line.partition(":") for line in lines)]  # fmt: skip
    parts = urlsplit(target)
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    headers = [value for name, value in fields if name == "last-event-id"]
    accept = [value for name, value in fields if name == "accept"]
    said_by, cursor = None, None
    if headers:
        said_by, cursor = "Last-Event-ID", headers[-1]
    else:
        for name in _CURSOR_PARAMETERS:
            if name in query:
                said_by, cursor = name, query[name]
                break
    return Request(method, parts.path, cursor, said_by, accept[-1] if accept else None)
