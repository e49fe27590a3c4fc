"""Blocks of an event stream: the standard's rules, every boundary of pieces, and the bound."""

from __future__ import annotations

import pytest
from httpx_sse import ServerSentEvent
from httpx_sse._decoders import SSEDecoder, SSELineDecoder
from hypothesis import given, settings
from hypothesis import strategies as st

from service.client.block_parser import Block, BlockParser
from service.client.client_errors import TooLarge

_STREAM = (
    b"\xef\xbb\xbf: a comment\n"
    b'retry: 1500\nid: 7\nevent: stream.open\ndata: {"headSeq":7}\n\n'
    b'id: 8\r\nevent: message.new\r\ndata: {"text":"\xe2\x82\xac"}\r\n\r\n'
    b"event:x\rdata\rdata: a\rdata:  b\r\r"
    b"\n\n"
    b"event: nothing\n\n"
    b"id\n\n"
    b"data: dropped, since the stream ends here\n"
)
_BLOCKS = [
    Block("stream.open", b'{"headSeq":7}', "7", 1500),
    Block("message.new", b'{"text":"\xe2\x82\xac"}', "8"),
    Block("x", b"\na\n b"),
    Block("", b"", ""),
]


def test_a_stream_in_one_piece_yields_its_blocks() -> None:
    """Ends of lines of all three kinds, a byte order mark, comments, several lines of data."""
    assert BlockParser().feed(_STREAM) == _BLOCKS


def test_a_boundary_of_pieces_may_be_anywhere() -> None:
    """Within a character, within CR LF, within the byte order mark."""
    for at in range(len(_STREAM) + 1):
        parser = BlockParser()
        assert [*parser.feed(_STREAM[:at]), *parser.feed(_STREAM[at:])] == _BLOCKS, at


def test_single_bytes_yield_the_same_blocks() -> None:
    """The smallest pieces that a network can deliver."""
    parser = BlockParser()
    assert [block for byte in _STREAM for block in parser.feed(bytes([byte]))] == _BLOCKS


def test_a_block_is_yielded_when_its_empty_line_is_there() -> None:
    """A live event must not wait for the next one, also where lines end with CR."""
    assert BlockParser().feed(b"data: 1\r\r") == [Block("", b"1")]


@pytest.mark.parametrize("separator", ["\u0085", "\u2028", "\u2029", "\x0b", "\x0c", "\x1c"])
def test_only_cr_and_lf_end_a_line(separator: str) -> None:
    """Unicode's other separators are part of the data."""
    data = f"a{separator}b".encode()
    assert BlockParser().feed(b"data: " + data + b"\n\n") == [Block("", data)]


@pytest.mark.parametrize("retry", [b"-5", b"1e3", b" 5", b"\xd9\xa1", b"", b"9" * 16])
def test_a_retry_that_is_no_number_is_ignored(retry: bytes) -> None:
    """Digits alone count, and not without end."""
    assert BlockParser().feed(b"retry: " + retry + b"\ndata: x\n\n") == [Block("", b"x")]


def test_an_id_with_a_zero_character_is_ignored() -> None:
    """The standard says so: it could not be sent as a header."""
    assert BlockParser().feed(b"id: 1\x002\ndata: x\n\n") == [Block("", b"x")]


@pytest.mark.parametrize("piece", [b"x" * 10, b"data: x\n", b"\r\n:"])
def test_a_block_without_end_is_refused_at_the_bound(piece: bytes) -> None:
    """A peer that never ends a block cannot fill the memory."""
    parser = BlockParser(max_block_bytes=100)
    with pytest.raises(TooLarge) as raised:
        _feed_many(parser, piece)
    assert raised.value.limit_bytes == 100


def _feed_many(parser: BlockParser, piece: bytes) -> None:
    for _ in range(50):
        parser.feed(piece)


def test_a_complete_block_above_the_bound_is_refused() -> None:
    """The bound does not depend on how a block was cut into pieces."""
    with pytest.raises(TooLarge):
        BlockParser(max_block_bytes=100).feed(b"data: " + b"x" * 200 + b"\n\n")


def test_blocks_within_the_bound_may_arrive_together() -> None:
    """The bound is one block's, not one piece's."""
    assert len(BlockParser(max_block_bytes=100).feed(b"data: x\n\n" * 1000)) == 1000


_LINES = st.sampled_from(
    ["data: a", "data:b", "data", "id: 4", "id", "event: e", "retry: 9", ": c", "other: x", "", ""]
)
_ENDS = st.sampled_from(["\n", "\r\n", "\r"])


@settings(max_examples=60)
@given(st.lists(st.tuples(_LINES, _ENDS), max_size=30), st.data())
def test_it_agrees_with_another_parser(lines: list[tuple[str, str]], data: st.DataObject) -> None:
    """httpx-sse reads the same blocks, whatever the pieces are."""
    text = "".join(line + end for line, end in lines).encode()
    parser, ours = BlockParser(), list[Block]()
    while text:
        size = data.draw(st.integers(1, len(text)))
        ours += parser.feed(text[:size])
        text = text[size:]
    theirs = _theirs("".join(line + end for line, end in lines))
    assert [
        (each.event or "message", each.data.decode(), each.retry_ms) for each in ours if each.data
    ] == [(each.event, each.data, each.retry) for each in theirs if each.data]


def _theirs(text: str) -> list[ServerSentEvent]:
    lines, blocks = SSELineDecoder(), SSEDecoder()
    # It holds a CR at the end back, as the beginning of CR LF.
    found = [blocks.decode(line) for line in [*lines.decode(text), *lines.flush()]]
    return [block for block in found if block is not None]
