"""Which pieces a request has, which are joined, and which are kept."""

from __future__ import annotations

from service.client.outgoing_pieces import MOST_BYTES, OutgoingPieces


def _wire(outgoing: OutgoingPieces) -> tuple[int, list[object]]:
    index, pieces = outgoing.request()
    return index, [piece.delta or piece.data for piece in pieces]


def test_a_request_is_the_same_until_it_is_taken() -> None:
    """What comes meanwhile is joined with what was in no request only."""
    outgoing = OutgoingPieces()
    outgoing.add_text("a")
    assert _wire(outgoing) == (0, ["a"])
    outgoing.add_text("b")
    outgoing.add_text("c")
    assert _wire(outgoing) == (0, ["a"])
    assert outgoing.expect(1)
    assert _wire(outgoing) == (1, ["bc"])
    assert outgoing.expect(2)
    assert outgoing.is_empty


def test_a_request_that_was_taken_in_part_goes_on() -> None:
    """From the piece that is expected."""
    outgoing = OutgoingPieces()
    for number in range(3):
        outgoing.add_part("data", number + 1)
    assert _wire(outgoing) == (0, [1, 2, 3])
    assert outgoing.expect(1)
    outgoing.add_part("data", 4)
    assert _wire(outgoing) == (1, [2, 3])
    assert outgoing.expect(3)
    assert _wire(outgoing) == (3, [4])


def test_a_request_has_at_most_200_pieces() -> None:
    """The rest goes into the next."""
    outgoing = OutgoingPieces(5)
    for number in range(450):
        outgoing.add_part("data", number + 1)
    sizes = []
    while not outgoing.is_empty:
        index, pieces = outgoing.request()
        sizes.append(len(pieces))
        assert outgoing.expect(index + len(pieces))
    assert sizes == [200, 200, 50]
    assert outgoing.next_index == 455


def test_a_long_text_is_several_pieces() -> None:
    """No piece is a large entry of the stream, also when it is joined."""
    outgoing = OutgoingPieces()
    outgoing.add_text("é" * 20_000)
    for _ in range(9000):
        outgoing.add_text("x")
    texts = [piece.delta for piece in outgoing.request()[1]]
    assert [len(text) for text in texts] == [8000, 8000, 4000, 8000, 1000]
    assert "".join(texts) == "é" * 20_000 + "x" * 9000


def test_data_is_sent_as_it_was_when_written() -> None:
    """Changing it afterwards changes nothing."""
    outgoing = OutgoingPieces()
    data = {"id": "call_1", "output": [1]}
    outgoing.add_part("tool", data)
    data["output"] = [2]
    assert _wire(outgoing) == (0, [{"id": "call_1", "output": [1]}])


def test_some_of_what_was_taken_is_kept() -> None:
    """For a service that lost its last writes; the rest is forgotten, or memory would grow."""
    outgoing = OutgoingPieces()
    for number in range(50):
        outgoing.add_part("data", str(number) * 2000)
        index, pieces = outgoing.request()
        assert outgoing.expect(index + len(pieces))
    assert not outgoing.expect(0)
    assert outgoing.next_index == 50
    assert not outgoing.expect(51)
    assert outgoing.expect(40)
    assert len(outgoing.request()[1]) == 10


def test_the_bound_counts_what_is_not_taken() -> None:
    """Whether or not it was in a request."""
    outgoing = OutgoingPieces()
    outgoing.add_text("x" * (MOST_BYTES - 1))
    full = [outgoing.is_full]
    outgoing.add_text("x")
    full.append(outgoing.is_full)
    index, pieces = outgoing.request()
    full.append(outgoing.is_full)
    assert outgoing.expect(index + len(pieces))
    full.append(outgoing.is_full)
    assert full == [False, True, True, False]
