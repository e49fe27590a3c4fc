"""The pieces of an answer: the text so far ends with a piece, whatever Redis does."""

from __future__ import annotations

import asyncio
from typing import cast

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.assistant import answer_pieces
from service.assistant.answer_pieces import AnswerPieces
from streams.answers.answer_values import Answer
from streams.eventlog import EventLog
from streams.model.errors import WindowUnavailable
from streams.model.ids import EntryId

ANSWER = Answer("a", "p", "u", 1, "q", "w", None, "")


class _Window:
    """Takes or refuses entries, as told, and keeps what it took. Each append waits for its turn."""

    def __init__(self) -> None:
        self.taken: list[tuple[int, str]] = []
        self.is_up = True

    async def append_transient(self, project_id: str, event: str, data: bytes) -> EntryId:
        await asyncio.sleep(0)
        if not self.is_up:
            raise WindowUnavailable("away")
        content = msgspec.json.decode(data)["content"]
        self.taken.append((content["index"], content["delta"]))
        return EntryId(1, len(self.taken))


@pytest.fixture(autouse=True)
def _without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DELTA_EVERY_S", "_RETRY_FIRST_S", "_RETRY_MOST_S"):
        monkeypatch.setattr(answer_pieces, name, 0.0)
    monkeypatch.setattr(answer_pieces, "_DELTA_CHARACTERS", 5)


STEPS = st.lists(
    st.one_of(st.text("abc", max_size=12), st.sampled_from(["SO FAR", "UP", "DOWN", "TURN"])),
    max_size=30,
)


def _pieces(window: _Window, *, stream: bool) -> AnswerPieces:
    return AnswerPieces(cast(EventLog, window), ANSWER, stream=stream)


@given(STEPS)
def test_pieces_after_the_text_so_far_complete_it(steps: list[str]) -> None:
    """§6 `answer.state`: the text up to a piece, then the pieces with a higher `index`."""

    async def write() -> None:
        window = _Window()
        pieces = _pieces(window, stream=True)
        states: list[tuple[str, int]] = []
        for step in steps:
            if step == "SO FAR":
                text, index = pieces.so_far()
                states.append((text, -1 if index is None else index))
            elif step in ("UP", "DOWN"):
                window.is_up = step == "UP"
            elif step == "TURN":
                await asyncio.sleep(0)
            else:
                pieces.add(step)
        window.is_up = True
        await pieces.finish(asyncio.get_running_loop().create_future())
        pieces.close()
        assert [index for index, _ in window.taken] == list(range(len(window.taken)))
        for text, last in [("", -1), *states]:
            rest = "".join(delta for index, delta in window.taken if index > last)
            assert text + rest == pieces.text

    asyncio.run(write())


async def test_an_answer_without_pieces_has_no_index() -> None:
    """§4: `index` is left out when there is nothing to say."""
    pieces = _pieces(_Window(), stream=False)
    pieces.add("text")
    assert pieces.so_far() == ("text", None)
    pieces = _pieces(_Window(), stream=True)
    assert pieces.so_far() == ("", None)
    pieces.close()


async def test_an_interruption_ends_the_wait_for_pieces() -> None:
    """§5: a stop while Redis is away is not held up by pieces that cannot be sent."""
    window = _Window()
    window.is_up = False
    pieces = _pieces(window, stream=True)
    pieces.add("text")
    interrupted = asyncio.get_running_loop().create_future()
    finishing = asyncio.create_task(pieces.finish(interrupted))
    await asyncio.sleep(0)
    interrupted.set_result(None)
    await asyncio.wait_for(finishing, 1)
    pieces.close()
    assert window.taken == []


async def test_a_text_is_cut_at_its_bound_between_characters() -> None:
    """SEQSTREAM_MAX_TEXT_BYTES bounds answers too, in bytes of UTF-8."""
    log = cast(EventLog, _Window())
    pieces = AnswerPieces(log, ANSWER, stream=False, max_text_bytes=6)
    assert pieces.add("aé")
    assert not pieces.add("éé")
    assert (pieces.text, pieces.truncated) == ("aéé", True)
