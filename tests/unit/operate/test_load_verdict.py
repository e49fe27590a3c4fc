"""The verdict of `seqstream load`: clean histories pass, and each kind of fault is found."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from service.operate.load_figures import Verdict
from service.operate.load_reader_judge import ReaderJudge
from service.operate.load_verdict import ProjectJudge, verdict_of

_BASE = 10
_ALL = range(11, 16)


def _digest(seq: int) -> int:
    return seq * 2 + 1


class _Run:
    """A run of five posts, seqs 11 to 15, with one connection from the head on."""

    def __init__(self) -> None:
        self.project = ProjectJudge("p", _BASE, posts=5)
        self.reader = self.project.reader()
        self.reader.connecting(None)
        self.reader.opened(_BASE)
        for number, seq in enumerate(_ALL):
            self.project.acknowledged(seq, number)

    def receive(self, *seqs: int, reader: ReaderJudge | None = None) -> None:
        for seq in seqs:
            (reader or self.reader).message(seq, _digest(seq))

    def verdict(self, stored: Sequence[int] = _ALL) -> Verdict:
        for seq in stored:
            self.project.stored(seq, _digest(seq), seq - 11)
        self.project.finish(max(stored, default=_BASE))
        return verdict_of([self.project])


def _found(verdict: Verdict) -> tuple[int, int, int, int]:
    return verdict.lost, verdict.repeated, verdict.reordered, verdict.changed


def test_all_once_and_in_order_is_clean() -> None:
    """Nothing is found, and the connection has its deliveries."""
    run = _Run()
    run.receive(*_ALL)
    verdict = run.verdict()
    assert (verdict.clean, _found(verdict)) == (True, (0, 0, 0, 0))
    assert verdict.connections[0].deliveries == 5
    assert verdict.examples == ()


@pytest.mark.parametrize(
    ("received", "found"),
    [
        ((11, 12, 14, 15), (1, 0, 0, 0)),
        ((11, 12, 13), (2, 0, 0, 0)),
        ((11, 12, 12, 13, 14, 15), (0, 1, 0, 0)),
        ((11, 12, 13, 14, 15, 11), (0, 1, 0, 0)),
        ((11, 13, 12, 14, 15), (0, 0, 1, 0)),
        ((11, 15, 13, 14, 12), (0, 0, 3, 0)),
        ((9, 11, 12, 13, 14, 15), (0, 1, 0, 0)),
        ((15,), (4, 0, 0, 0)),
        ((), (5, 0, 0, 0)),
    ],
)
def test_what_one_connection_got_wrong_is_found(
    received: Sequence[int], found: tuple[int, int, int, int]
) -> None:
    """Lost, repeated and reordered messages, each counted as what it is."""
    run = _Run()
    run.receive(*received)
    verdict = run.verdict()
    assert (verdict.clean, _found(verdict)) == (False, found)
    assert verdict.examples != ()
    assert not verdict.connections[0].is_clean


def test_another_content_than_in_the_history_is_found() -> None:
    """All connections may agree, and be wrong."""
    run = _Run()
    run.receive(11, 12, 13, 14)
    run.reader.message(15, 4711)
    assert _found(run.verdict()) == (0, 0, 0, 1)


@pytest.mark.parametrize("first_is_wrong", [False, True])
def test_a_connection_with_another_content_than_the_rest_is_found(first_is_wrong: bool) -> None:
    """The history tells which of two is right."""
    run = _Run()
    other = run.project.reader()
    other.connecting(None)
    other.opened(_BASE)
    run.receive(11, 12, 13, 14)
    run.receive(11, 12, 13, 14, reader=other)
    run.reader.message(15, 4711 if first_is_wrong else _digest(15))
    other.message(15, _digest(15) if first_is_wrong else 4711)
    verdict = run.verdict()
    assert _found(verdict) == (0, 0, 0, 1)
    assert [row.changed for row in verdict.connections] == [0, 0 if first_is_wrong else 1]


def test_an_acknowledged_post_that_the_history_lacks_is_lost() -> None:
    """Also when no connection received it."""
    run = _Run()
    run.receive(11, 12, 13, 14)
    assert _found(run.verdict(stored=range(11, 15))) == (1, 0, 0, 0)


def test_a_hole_in_the_history_is_found() -> None:
    """G1: seqs without holes."""
    run = _Run()
    run.receive(*_ALL)
    assert _found(run.verdict(stored=(11, 12, 14, 15))) == (1, 0, 0, 0)


def test_a_post_that_is_stored_twice_is_found() -> None:
    """G5: a retry adds nothing."""
    run = _Run()
    run.receive(*_ALL, 16)
    for seq, number in zip(range(11, 17), (0, 1, 2, 3, 4, 2), strict=True):
        run.project.stored(seq, _digest(seq), number)
    run.project.finish(16)
    assert _found(verdict_of([run.project])) == (0, 1, 0, 0)


def test_another_message_under_an_acknowledged_seq_is_found() -> None:
    """The seq of a receipt is the message's for ever."""
    run = _Run()
    run.receive(*_ALL)
    for seq, number in zip(_ALL, (0, 1, 3, 2, None), strict=True):
        run.project.stored(seq, _digest(seq), number)
    run.project.finish(15)
    assert _found(verdict_of([run.project])) == (0, 0, 0, 3)


def test_messages_of_others_do_no_harm() -> None:
    """A project in use: they have no number."""
    run = _Run()
    run.receive(*_ALL, 16)
    for seq in range(11, 17):
        run.project.stored(seq, _digest(seq), seq - 11 if seq < 16 else None)
    run.project.finish(16)
    assert verdict_of([run.project]).clean


def test_a_reconnect_goes_on_after_its_cursor() -> None:
    """What the cut connection already brought is no repeat on the next."""
    run = _Run()
    run.receive(11, 12, 13)
    run.reader.connecting(12)
    run.receive(13, 14, 15)
    verdict = run.verdict()
    assert (verdict.clean, verdict.connections[0].reconnects) == (True, 1)


def test_a_message_at_the_cursor_of_a_reconnect_is_a_repeat() -> None:
    """G3: after the cursor."""
    run = _Run()
    run.receive(11, 12)
    run.reader.connecting(12)
    run.receive(12, 13, 14, 15)
    assert _found(run.verdict()) == (0, 1, 0, 0)


def test_a_reconnect_beyond_what_was_received_loses() -> None:
    """A client that forgets."""
    run = _Run()
    run.receive(11)
    run.reader.connecting(13)
    run.receive(14, 15)
    assert _found(run.verdict()) == (2, 0, 0, 0)


def test_what_was_announced_and_fetched_is_not_lost() -> None:
    """`replay.end`, then the history, then what follows; also over a cut in the middle."""
    run = _Run()
    run.receive(11)
    run.reader.announced(15)
    run.reader.fetched(12, _digest(12))
    run.reader.connecting(12)
    run.reader.announced(15)
    run.reader.fetched(13, _digest(13))
    run.reader.fetched(14, _digest(14))
    run.receive(15)
    assert run.verdict().clean


@pytest.mark.parametrize(("fetched", "lost"), [((), 3), ((12,), 2), ((12, 14), 1), ((14,), 2)])
def test_what_was_announced_and_not_fetched_is_lost(fetched: Sequence[int], lost: int) -> None:
    """The next message must not come before the range is there."""
    run = _Run()
    run.receive(11)
    run.reader.announced(15)
    for seq in fetched:
        run.reader.fetched(seq, _digest(seq))
    run.receive(15)
    assert _found(run.verdict()) == (lost, 0, 0, 0)


def test_a_stream_that_never_opened_is_found() -> None:
    """It received nothing, and that is not clean."""
    run = _Run()
    run.receive(*_ALL)
    run.project.reader().connecting(None)
    assert not run.verdict().clean


def test_an_invented_seq_does_not_fill_the_memory() -> None:
    """A peer that says 2^53: nothing is kept for what is before it."""
    run = _Run()
    run.receive(*_ALL)
    run.reader.message(2**53, 1)
    run.project.acknowledged(2**53, 0)
    assert not run.verdict().clean
    assert len(run.project._received) == 5


def test_what_is_kept_of_faults_is_bounded() -> None:
    """A broken run of any length: counts go on, examples and ranges do not."""
    run = _Run()
    for seq in range(11, 20_000, 2):
        run.receive(seq)
    assert len(run.reader._missing) <= 1000
    run.reader.finish(19_999)
    assert run.reader.lost == 9_994
    assert len(run.project.examples) == 20
