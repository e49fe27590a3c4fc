"""The benchmark's reader reports violations of G3, wherever the bytes are split."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.harness.marks import make_text
from bench.harness.sse_wire import MarkScanner, ResponseBody, SeqScanner, Tally, WireError

_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
_PROLOGUE = b"event: stream.open\nretry: 2000\ndata: {}\nid: 4\n\nevent: stream.live\ndata: {}\n\n"
_READ_NS = 9_000_000


def _chunk(payload: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(payload), payload)


def _message(seq: int, begun_ns: int = 1_000_000) -> bytes:
    text = make_text(seq, begun_ns, 60).encode()
    return b'event: message.new\ndata: {"text":"%b"}\nid: %d\n\n' % (text, seq)


def _read(events: bytes) -> tuple[SeqScanner, Tally]:
    tally = Tally()
    scanner = SeqScanner(tally, "p")
    scanner.feed(_PROLOGUE + events, _READ_NS)
    return scanner, tally


@given(cuts=st.lists(st.integers(min_value=0, max_value=2000), max_size=40))
def test_any_cut_of_a_chunked_response_gives_the_same_messages(cuts: list[int]) -> None:
    """Messages are counted the same wherever reads and chunks end."""
    heartbeat = b"event: heartbeat\ndata: {}\n\n"
    chunks = [_PROLOGUE, _message(5), _message(6) + heartbeat, _message(7)[:30], _message(7)[30:]]
    wire = _HEAD + b"".join(_chunk(chunk) for chunk in chunks)
    edges = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    tally = Tally()
    body, scanner = ResponseBody(), SeqScanner(tally, "p")
    for start, end in itertools.pairwise(edges):
        scanner.feed(body.feed(wire[start:end]), _READ_NS)
    assert (body.status, scanner.live, scanner.count, scanner.last_seq) == (200, True, 3, 7)
    assert tally.violations == []


@pytest.mark.parametrize(
    "seqs",
    [
        pytest.param([5, 7], id="gap"),
        pytest.param([5, 5], id="repeat"),
        pytest.param([6, 5], id="reordered"),
        pytest.param([4], id="the cursor again"),
    ],
)
def test_a_broken_order_is_a_violation(seqs: list[int]) -> None:
    """Every seq must be received exactly once, each one more than the last."""
    _, tally = _read(b"".join(_message(seq) for seq in seqs))
    assert tally.violation_count > 0


@pytest.mark.parametrize(
    ("seqs", "violations"),
    [
        pytest.param(range(5, 205), 0, id="in order"),
        pytest.param([*range(5, 100), *range(101, 205)], 1, id="gap"),
        pytest.param([*range(5, 100), *range(99, 205)], 1, id="repeat"),
    ],
)
def test_a_large_read_is_checked_like_small_ones(seqs: list[int], violations: int) -> None:
    """The fast path for many messages in one read reports the same violations."""
    scanner, tally = _read(b"")
    scanner.feed(b"".join(_message(seq) for seq in seqs) + b"event: hear", _READ_NS)
    scanner.feed(b"tbeat\ndata: {}\n\n" + _message(205), _READ_NS)
    assert tally.violation_count == violations
    assert (scanner.count, tally.deliveries) == (len(seqs) + 1, len(seqs) + 1)
    assert scanner.last_seq == 205


@given(
    cuts=st.lists(st.integers(min_value=0, max_value=40_000), max_size=12),
    heartbeats=st.sets(st.integers(min_value=5, max_value=204), max_size=5),
)
def test_any_cut_of_a_long_replay_gives_the_same_messages(
    cuts: list[int], heartbeats: set[int]
) -> None:
    """Large and small reads, with other events between, give the same counts."""
    heartbeat = b"event: heartbeat\ndata: {}\n\n"
    wire = _PROLOGUE + b"".join(
        _message(seq) + (heartbeat if seq in heartbeats else b"") for seq in range(5, 205)
    )
    edges = [0, *sorted(min(cut, len(wire)) for cut in cuts), len(wire)]
    tally = Tally()
    scanner = SeqScanner(tally, "p")
    for start, end in itertools.pairwise(edges):
        scanner.feed(wire[start:end], _READ_NS)
    assert (scanner.live, scanner.count, scanner.last_seq) == (True, 200, 204)
    assert (tally.deliveries, len(tally.latencies_us), tally.violations) == (200, 200, [])


@pytest.mark.parametrize(
    ("second", "violations"),
    [
        pytest.param([*range(5, 205)], 0, id="the same"),
        pytest.param([*range(5, 105)], 0, id="a part"),
        pytest.param([*range(5, 300)], 0, id="more"),
        pytest.param([*range(5, 100), *range(101, 206)], 1, id="gap"),
        pytest.param([*range(5, 100), 99, *range(100, 205)], 1, id="repeat"),
        pytest.param([*range(6, 205)], 1, id="not from the cursor on"),
    ],
)
@given(cuts=st.lists(st.integers(min_value=0, max_value=60_000), max_size=5))
def test_equal_bytes_are_checked_for_each_connection(
    second: list[int], violations: int, cuts: list[int]
) -> None:
    """Each connection's bytes are compared with those of the messages checked before."""
    tally = Tally()
    for number, seqs in enumerate((range(5, 205), second)):
        scanner = SeqScanner(tally, "p")
        body = _PROLOGUE + b"".join(_message(seq, 1_000_000 + seq) for seq in seqs)
        edges = [0, *(sorted(min(cut, len(body)) for cut in cuts) if number else ()), len(body)]
        for start, end in itertools.pairwise(edges):
            scanner.feed(body[start:end], _READ_NS)
        assert scanner.count == len(seqs)
    assert tally.violation_count == violations
    assert tally.deliveries == 200 + len(second)
    assert list(tally.latencies_us[-len(second) :]) == [
        (_READ_NS - 1_000_000 - seq) // 1000 for seq in second
    ]


def test_a_message_without_an_id_is_a_violation() -> None:
    """Every message must have its seq as the SSE id."""
    _, tally = _read(_message(5).replace(b"\nid: 5\n", b"\n"))
    assert tally.violation_count == 1


@pytest.mark.parametrize("event", ["stream.closing", "stream.refused", "replay.end"])
def test_an_end_or_a_gap_that_is_announced_is_a_violation(event: str) -> None:
    """In a benchmark no stream may be closed and no message left out, even if announced."""
    _, tally = _read(b"event: %b\ndata: {}\n\n" % event.encode())
    assert tally.violation_count == 1


def test_latency_is_from_the_mark_to_the_read() -> None:
    """Latency is the time of the read minus the time in the text's mark."""
    _, tally = _read(_message(5, begun_ns=2_000_000))
    assert list(tally.latencies_us) == [7000]


@given(cuts=st.lists(st.integers(min_value=0, max_value=400), max_size=20))
def test_marks_are_counted_once_wherever_reads_end(cuts: list[int]) -> None:
    """A mark that is split over two reads counts as one message."""
    body = b"".join(b"data: %b\r\n\r\n" % make_text(n, 1, 50).encode() for n in (1, 2, 3))
    edges = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    scanner = MarkScanner(Tally())
    for start, end in itertools.pairwise(edges):
        scanner.feed(body[start:end], _READ_NS)
    assert (scanner.count, scanner.number_sum) == (3, 6)


def test_the_last_chunk_ends_the_body() -> None:
    """The reader detects that the server ended a stream."""
    body = ResponseBody()
    assert body.feed(_HEAD + _chunk(b"x") + b"0\r\n\r\n") == b"x"
    assert body.ended


def test_a_body_without_chunks_is_read_unchanged() -> None:
    """Some peers end the body by closing the connection."""
    body = ResponseBody()
    assert body.feed(b"HTTP/1.1 200 OK\r\n\r\ndata: 1\n\n") == b"data: 1\n\n"


@pytest.mark.parametrize("wire", [b"SSH-2.0-x\r\n\r\n", _HEAD + b"zz\r\nx\r\n"])
def test_a_response_that_is_not_http_is_an_error(wire: bytes) -> None:
    """Bytes that are not an HTTP response fail the run."""
    with pytest.raises(WireError):
        ResponseBody().feed(wire)
