"""docs/protocol.md §6: what the headers and the query of a request for a stream ask for."""

from __future__ import annotations

import pytest

from service.http.api_errors import ApiError
from service.routes.stream_query import StreamQuery, read_stream_query


def _read(query: str = "", *cursors: str) -> StreamQuery:
    headers = [(b"last-event-id", cursor.encode()) for cursor in cursors]
    return read_stream_query([(b"accept", b"*/*"), *headers], query.encode())


@pytest.mark.parametrize(
    ("query", "cursors", "cursor"),
    [
        ("", (), ""),
        ("", ("7",), "7"),
        ("", ("7", "9"), "9"),
        ("", ("7", ""), "7"),
        ("lastEventId=5&last_event_id=4&from_seq=3", ("7",), "7"),
        ("lastEventId=5&last_event_id=4&from_seq=3", ("",), "5"),
        ("lastEventId=&last_event_id=4&from_seq=3", (), "4"),
        ("from_seq=3&lastEventId=5", (), "5"),
        ("lastEventId=4&lastEventId=6", (), "6"),
        ("from_seq=0", (), "0"),
        ("lasteventid=4", (), ""),
    ],
)
def test_the_cursor_is_the_last_event_that_the_client_names(
    query: str, cursors: tuple[str, ...], cursor: str
) -> None:
    """§6: the last header, else `lastEventId`, `last_event_id`, `from_seq`; empty is none."""
    assert _read(query, *cursors).cursor == cursor


@pytest.mark.parametrize(
    ("query", "tail", "heartbeat_s"),
    [("", None, None), ("tail=", None, None), ("tail=1", 1, None), ("tail=200", 200, None),
     ("heartbeat=2", None, 2), ("heartbeat=60&tail=50", 50, 60)],
)  # fmt: skip
def test_tail_and_heartbeat_are_whole_numbers(
    query: str, tail: int | None, heartbeat_s: int | None
) -> None:
    """§6: `tail=1..200`, `heartbeat=2..60`; without them the service's own."""
    read = _read(query)
    assert (read.tail, read.heartbeat_s) == (tail, heartbeat_s)


@pytest.mark.parametrize(
    "query",
    ["tail=0", "tail=201", "tail=-1", "tail=1.5", "tail=%2B1", "tail=1_0", "tail=%D9%A3",
     "tail=" + "9" * 5000, "heartbeat=1", "heartbeat=61", "heartbeat=nan", "heartbeat= 5"],
)  # fmt: skip
def test_other_values_are_refused_by_name(query: str) -> None:
    """§4: the error names the parameter."""
    with pytest.raises(ApiError) as refused:
        _read(query)
    assert refused.value.status == 400
    assert f"'{query.split('=')[0]}'" in repr(refused.value.details)
