"""docs/design.md: what any reader was shown is stored, whatever the store does meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streams.answers import piece_store
from streams.answers.answer_values import Answer
from streams.answers.open_answer import OpenAnswer
from streams.answers.piece_publisher import PiecePublisher
from streams.answers.piece_rows import NewPiece, PieceRows
from streams.answers.piece_store import PieceStore
from streams.answers.pieces import AnswerText, Piece, part_piece, text_piece
from streams.model.errors import LogUnavailable, StreamsError

ANSWERS = [
    Answer(id=id, project_id="p", user_id="u", question_seq=1, reply_to="q", worker_id="w")
    for id in ("a", "b")
]


class _Servers:
    """The tables and the stream; what is published must have been stored."""

    def __init__(self, outcomes: Sequence[str]) -> None:
        self.outcomes = list(outcomes)
        self.pieces: dict[tuple[str, int], Piece] = {}
        self.published: list[tuple[str, int]] = []
        self.lost: set[str] = set()
        self.stopped: dict[str, str] = {}

    async def store(self, pieces: Sequence[NewPiece], worker_id: str) -> Mapping[str, str | None]:
        await asyncio.sleep(0)
        outcome = self.outcomes.pop(0) if self.outcomes else "stored"
        if outcome == "away":
            raise LogUnavailable("away")
        if any(each.piece.delta == "bad" for each in pieces):
            raise StreamsError("refused")
        for each in pieces:
            if each.answer_id not in self.lost:
                key = each.answer_id, each.index
                assert self.pieces.setdefault(key, each.piece) == each.piece
        if outcome == "unknown":
            raise LogUnavailable("the connection broke after the commit")
        return {
            each.answer_id: self.stopped.get(each.answer_id)
            for each in pieces
            if each.answer_id not in self.lost
        }

    def submit(self, answer: Answer, first_index: int, pieces: Sequence[Piece]) -> None:
        for index, piece in enumerate(pieces, first_index):
            assert self.pieces[answer.id, index] == piece
            self.published.append((answer.id, index))


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PIECE_EVERY_S", "_RETRY_FIRST_S", "_RETRY_MOST_S"):
        monkeypatch.setattr(piece_store, name, 0.0)


def _opened(servers: _Servers) -> tuple[PieceStore, list[OpenAnswer]]:
    opened: list[OpenAnswer] = []
    rows, publisher = cast(PieceRows, servers), cast(PiecePublisher, servers)
    store = PieceStore(rows, publisher, "w", lambda: opened)
    opened += [OpenAnswer(answer, store.wake) for answer in ANSWERS]
    return store, opened


PIECES = st.one_of(
    st.text("ab", min_size=1, max_size=3).map(text_piece),
    st.sampled_from(["x", "y"]).map(lambda text: part_piece("reasoning", {"text": text})),
)


@settings(max_examples=50)
@given(
    st.lists(st.tuples(st.sampled_from([0, 1]), PIECES, st.booleans()), max_size=20),
    st.lists(st.sampled_from(["stored", "away", "unknown"]), max_size=12),
)
def test_everything_is_stored_once_in_order_then_published(
    steps: list[tuple[int, Piece, bool]], outcomes: list[str]
) -> None:
    """Whatever fails: the stored pieces say what was written, and each is published once."""

    async def write() -> None:
        servers = _Servers(outcomes)
        store, opened = _opened(servers)
        running = asyncio.create_task(store.run())
        for number, piece, does_wait in steps:
            opened[number].add(piece)
            if does_wait:
                await asyncio.sleep(0)
        for each in opened:
            await asyncio.wait_for(each.all_stored(), 5)
        running.cancel()
        for each in opened:
            kept = [key for key in sorted(servers.pieces) if key[0] == each.answer.id]
            assert [index for _, index in kept] == list(range(len(kept)))
            told = AnswerText(servers.pieces[key] for key in kept)
            assert (told.text, told.text_bytes) == (each.written.text, each.written.text_bytes)
            assert [part.offset for part in told.parts] == [p.offset for p in each.written.parts]
            assert [key for key in servers.published if key[0] == each.answer.id] == kept

    asyncio.run(write())


async def test_what_comes_meanwhile_is_joined() -> None:
    """20 pieces a second of an answer, however fast it is written."""
    servers = _Servers([])
    store, (opened, _) = _opened(servers)
    for word in ("a ", "b ", "c"):
        opened.add(text_piece(word))
    running = asyncio.create_task(store.run())
    await asyncio.wait_for(opened.all_stored(), 5)
    running.cancel()
    assert servers.pieces == {("a", 0): text_piece("a b c")}


async def test_an_answer_that_is_not_streamed_holds_up_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its pieces may wait long to be joined; the first of another is stored meanwhile."""
    monkeypatch.setattr(piece_store, "_UNSEEN_EVERY_S", 3600.0)
    servers = _Servers([])
    store, opened = _opened(servers)
    unseen = OpenAnswer(msgspec.structs.replace(ANSWERS[0], is_streamed=False), store.wake)
    opened[0] = unseen
    unseen.add(text_piece("x"))
    running = asyncio.create_task(store.run())
    await asyncio.wait_for(unseen.all_stored(), 5)
    unseen.add(text_piece("y"))
    # The store waits for the time of that piece.
    for _ in range(10):
        await asyncio.sleep(0)
    opened[1].add(text_piece("seen"))
    await asyncio.wait_for(opened[1].all_stored(), 5)
    running.cancel()
    assert servers.pieces["b", 0] == text_piece("seen")


async def test_an_answer_that_is_lost_or_stopped_is_interrupted() -> None:
    """With its next piece; of a lost one nothing is published."""
    servers = _Servers([])
    store, opened = _opened(servers)
    servers.lost.add("a")
    servers.stopped["b"] = "who"
    for each in opened:
        each.add(text_piece("x"))
    running = asyncio.create_task(store.run())
    for each in opened:
        await asyncio.wait_for(each.interrupted, 5)
    running.cancel()
    assert servers.published == [("b", 0)]


async def test_a_piece_that_is_refused_holds_up_no_other_answer() -> None:
    """A bug or a limit of the store ends its own answer alone."""
    servers = _Servers([])
    store, opened = _opened(servers)
    opened[0].add(text_piece("bad"))
    opened[1].add(text_piece("good"))
    running = asyncio.create_task(store.run())
    await asyncio.wait_for(opened[0].interrupted, 5)
    running.cancel()
    assert servers.published == [("b", 0)]
    assert not opened[1].interrupted.done()
