"""The benchmark's requests: marks in texts, signatures of docs/protocol.md §3, responses."""

from __future__ import annotations

import hashlib
import hmac
import json

import click
import pytest

from bench.harness.http11 import CHANNEL, NUMBER, TEXT, PostBuilder, PostTemplate, Signer
from bench.harness.marks import MARK_BEGIN, MARK_BYTES, make_text
from bench.harness.options import parse_env
from bench.harness.poster import _complete_status

_TEMPLATE = PostTemplate(
    path=f"/v1/projects/{CHANNEL}/chat/messages",
    body=f'{{"message":"{TEXT}","client_msg_id":"{CHANNEL}-{NUMBER}"}}',
    signer=Signer("u1", "s" * 32),
)


def _split(request: bytes) -> tuple[str, dict[str, str], bytes]:
    head, _, body = request.partition(b"\r\n\r\n")
    line, *fields = head.decode().split("\r\n")
    return line, dict(field.split(": ", 1) for field in fields), body


def test_a_text_has_the_asked_size_and_its_mark_first() -> None:
    """The size of a text includes its mark."""
    text = make_text(7, 123, 250)
    assert len(text.encode()) == 250
    assert text.encode().startswith(MARK_BEGIN + b"0000000000000123.000000007~")


def test_a_text_too_small_for_its_mark_is_refused() -> None:
    """A text without its whole mark could not be timed."""
    with pytest.raises(ValueError):
        make_text(1, 1, MARK_BYTES - 1)


def test_a_post_is_filled_in_and_has_its_length() -> None:
    """Channel, number and text are inserted where the template has their places."""
    line, fields, body = _split(PostBuilder(_TEMPLATE, "h:1").build("p1", 3, "hello", 1000))
    assert line == "POST /v1/projects/p1/chat/messages HTTP/1.1"
    assert json.loads(body) == {"message": "hello", "client_msg_id": "p1-3"}
    assert int(fields["Content-Length"]) == len(body)


def test_a_post_is_signed_as_the_protocol_says() -> None:
    """HMAC-SHA256 of the lines of docs/protocol.md §3, without a scope."""
    _, fields, body = _split(PostBuilder(_TEMPLATE, "h:1").build("p1", 3, "hello", 1000))
    digest = hashlib.sha256(body).hexdigest()
    text = f"v2\n1000\nPOST\n/v1/projects/p1/chat/messages\nu1\n\n{digest}"
    expected = hmac.new(b"s" * 32, text.encode(), "sha256").hexdigest()
    assert fields["X-Seqstream-Signature"] == f"v2={expected}"
    assert (fields["X-Seqstream-User"], fields["X-Seqstream-Timestamp"]) == ("u1", "1000")


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{}", 201),
        (b"HTTP/1.1 201 Created\r\nContent-Length: 2\r\n\r\n{", None),
        (b"HTTP/1.1 201 Created\r\ncontent-le", None),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n", None),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", 200),
    ],
)
def test_an_answer_counts_when_it_is_complete(answer: bytes, status: int | None) -> None:
    """A connection is free for the next post only after the complete response."""
    assert _complete_status(answer) == status


def test_environment_pairs_are_split_at_the_first_sign() -> None:
    """A value may contain `=`."""
    assert parse_env(("A=b=c",)) == {"A": "b=c"}


def test_an_environment_pair_without_a_sign_is_refused() -> None:
    """A pair without `=` is an error, not an empty value."""
    with pytest.raises(click.BadParameter):
        parse_env(("A",))
