"""docs/protocol.md §6: messages on the wire, and which messages may be posted."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta, timezone

import msgspec
import pytest

from streams.model.errors import InvalidInput, PayloadTooLarge
from streams.model.events import (
    MAX_METADATA_BYTES,
    MAX_TEXT_BYTES,
    BuildContent,
    BuildStatus,
    Message,
    NewMessage,
    PreparedMessage,
    encode,
    format_time,
    prepare,
)

TIME = "2026-01-02T03:04:05.000006Z"
ID = "0b1e6a3c-0000-4000-8000-000000000000"


def _committed(message: NewMessage) -> bytes:
    return encode(prepare(message).committed("p", 7, ID, TIME))


def test_a_message_has_the_fields_of_the_protocol() -> None:
    """§6: data of `message.new`, byte by byte; without a parent there is no `parentId`."""
    message = NewMessage(user_id="u", text="hello", client_msg_id="c")
    assert _committed(message) == (
        b'{"seq":7,"messageId":"0b1e6a3c-0000-4000-8000-000000000000","client_msg_id":"c",'
        b'"projectId":"p","userId":"u","content":{"text":"hello","type":"user","mode":"chat",'
        b'"actor_type":"client"},"timestamp":"2026-01-02T03:04:05.000006Z",'
        b'"metadata":{"build_id":null,"response_data":null}}'
    )


def test_a_missing_client_msg_id_is_null() -> None:
    """§6: the field `client_msg_id` is always present."""
    assert b'"client_msg_id":null' in _committed(NewMessage(user_id="u", text="t"))


def test_a_reply_has_its_parents_id() -> None:
    """§6: `parentId` when the message has a parent."""
    message = NewMessage(user_id="u", text="t", parent_id="m1")
    assert msgspec.json.decode(_committed(message))["parentId"] == "m1"


def test_the_callers_metadata_is_added_to_the_fixed_fields() -> None:
    """§6: metadata has `build_id`, `response_data` and the caller's fields."""
    message = NewMessage(user_id="u", text="t", metadata={"tag": [1, {"x": None}]})
    assert msgspec.json.decode(_committed(message))["metadata"] == {
        "build_id": None,
        "response_data": None,
        "tag": [1, {"x": None}],
    }


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "a\rb", "\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"])
def test_the_data_is_one_line(text: str) -> None:
    """§6: `data` is one line, also for a text with line breaks."""
    data = _committed(NewMessage(user_id="u", text=text))
    assert b"\n" not in data
    assert b"\r" not in data
    assert msgspec.json.decode(data, type=Message).content.text == text


def test_a_build_status_has_the_fields_of_the_protocol() -> None:
    """§6: data of `build.status`, byte by byte."""
    status = BuildStatus(
        project_id="p",
        user_id="u",
        status="in_progress",
        content=BuildContent("b", "v", 1, 50, "compile", "half way"),
        timestamp=TIME,
        metadata={},
    )
    assert encode(status) == (
        b'{"projectId":"p","userId":"u","status":"in_progress","content":{"buildId":"b",'
        b'"versionId":"v","attempt":1,"progress":50,"step":"compile","message":"half way"},'
        b'"timestamp":"2026-01-02T03:04:05.000006Z","metadata":{}}'
    )


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05.000000Z"),
        (datetime(2026, 1, 2, 3, 4, 5, 120000, tzinfo=UTC), "2026-01-02T03:04:05.120000Z"),
        (
            datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=timezone(timedelta(hours=2))),
            "2026-01-02T01:04:05.000006Z",
        ),
    ],
)
def test_times_are_utc_with_microseconds(moment: datetime, text: str) -> None:
    """docs/protocol.md: all times are RFC 3339 UTC with microseconds."""
    assert format_time(moment) == text


def test_each_message_gets_a_unique_id() -> None:
    """Ids are version 4 UUIDs."""
    message = NewMessage(user_id="u", text="t")
    ids = {prepare(message).message_id for _ in range(100)}
    assert len(ids) == 100
    assert {uuid.UUID(each).version for each in ids} == {4}


@pytest.mark.parametrize("text", ["x" * MAX_TEXT_BYTES, "é" * (MAX_TEXT_BYTES // 2)])
def test_a_text_may_have_64_kib_of_utf_8(text: str) -> None:
    """§4: a message's text is at most 64 KiB."""
    assert prepare(NewMessage(user_id="u", text=text)).source.text == text


@pytest.mark.parametrize("text", ["x" * (MAX_TEXT_BYTES + 1), "é" * (MAX_TEXT_BYTES // 2) + "x"])
def test_a_text_above_64_kib_is_too_large(text: str) -> None:
    """§4: a message's text is at most 64 KiB, counted in bytes."""
    with pytest.raises(PayloadTooLarge) as refused:
        prepare(NewMessage(user_id="u", text=text))
    assert refused.value.field == "message"


def test_metadata_above_its_limit_is_too_large() -> None:
    """§4: 413 `PAYLOAD_TOO_LARGE` names the field."""
    with pytest.raises(PayloadTooLarge) as refused:
        prepare(NewMessage(user_id="u", text="t", metadata={"x": "y" * MAX_METADATA_BYTES}))
    assert refused.value.field == "metadata"


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ("message", NewMessage(user_id="u", text="")),
        ("message", NewMessage(user_id="u", text="a\x00b")),
        ("message", NewMessage(user_id="u", text="\ud800")),
        ("userId", NewMessage(user_id="", text="t")),
        ("userId", NewMessage(user_id="a b", text="t")),
        ("client_msg_id", NewMessage(user_id="u", text="t", client_msg_id="")),
        ("client_msg_id", NewMessage(user_id="u", text="t", client_msg_id="x" * 129)),
        ("client_msg_id", NewMessage(user_id="u", text="t", client_msg_id="a\nb")),
        ("parentId", NewMessage(user_id="u", text="t", parent_id="")),
        ("metadata", NewMessage(user_id="u", text="t", metadata={"x": object()})),
    ],
)
def test_a_bad_field_is_named(field: str, message: NewMessage) -> None:
    """§4: 400 `VALIDATION_FAILED`, details name the field."""
    with pytest.raises(InvalidInput) as refused:
        prepare(message)
    assert refused.value.field == field


def test_u_0000_in_metadata_is_escaped() -> None:
    """§4: what is accepted can be stored; Postgres cannot store the byte 0, but its escape."""
    prepared = prepare(NewMessage(user_id="u", text="t", metadata={"x": "\x00"}))
    assert prepared.metadata is not None
    assert b"\x00" not in prepared.metadata


def _digest(**changes: object) -> bytes:
    message = msgspec.structs.replace(
        NewMessage(user_id="u", text="t", client_msg_id="c", metadata={"a": 1, "b": 2}), **changes
    )
    prepared: PreparedMessage = prepare(message)
    assert prepared.digest is not None
    return prepared.digest


@pytest.mark.parametrize(
    "change",
    [
        {"text": "other"},
        {"mode": "plan"},
        {"type": "system"},
        {"actor_type": "worker"},
        {"parent_id": "m"},
        {"metadata": {"a": 1, "b": 3}},
        {"metadata": None},
    ],
)
def test_another_content_has_another_digest(change: dict[str, object]) -> None:
    """G5: the digest distinguishes another content from a repeat."""
    assert _digest(**change) != _digest()


def test_the_order_of_metadata_does_not_change_the_digest() -> None:
    """G5: a client's retry may send the same JSON in another order."""
    assert _digest(metadata={"b": 2, "a": 1}) == _digest()


def test_no_metadata_and_empty_metadata_have_the_same_digest() -> None:
    """G5: both mean that the message has no metadata."""
    assert _digest(metadata={}) == _digest(metadata=None)
