"""Streams that open while an answer is written, with anything between its storing and their reads.

docs/protocol.md §6: all its text up to a piece; pieces with a higher index follow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from streams.answers.answer_events import delta_data, state_data
from streams.answers.answer_values import Answer, AnswerProgress, AnswerState
from streams.answers.followed_answers import FollowedAnswers
from streams.answers.pieces import AnswerText, Piece, part_piece, text_piece
from streams.model import sse
from streams.model.events import encode
from tests.support.answer_reader import AnswerReader
from tests.support.entries import message

# What is stored, comes and is read, more often than what goes wrong.
_STEPS = (
    ["store", "store", "publish", "open", "read", "read is served", "read ends"] * 3
    + ["begin", "begin unheard", "publish late", "lose", "repeat", "end", "end arrives"]
    + ["read fails", "open slowly", "opened", "poll", "poll begins", "poll ends"]
)
_ENDED = 1000
_IDS = [f"0000000{n}-0000-4000-8000-000000000000" for n in range(2)]
_steps = st.lists(
    st.tuples(st.sampled_from(_STEPS), st.sampled_from([0, 0, 0, 1])), min_size=20, max_size=80
)


def _piece(index: int) -> Piece:
    """Return the piece with this index: text, and parts of which some join."""
    if index % 7 in (2, 3, 6):
        return part_piece("reasoning", {"text": f"<{index}>"})
    return part_piece("data", index) if index % 7 == 5 else text_piece(f"[{index}]é")


class _Stored:
    """An answer as Postgres has it."""

    def __init__(self, answer_id: str) -> None:
        self.id = answer_id
        self.pieces: list[Piece] = []
        self.has_begun = False
        self.has_ended = False

    @property
    def is_unfinished(self) -> bool:
        return self.has_begun and not self.has_ended

    def state(self, upto: int | None = None) -> AnswerState:
        pieces = self.pieces[:upto]
        answer = Answer(
            id=self.id, project_id="p", user_id="u", question_seq=1, reply_to="q", worker_id="w"
        )
        text = AnswerText(pieces)
        return AnswerState(
            answer=answer, status="in_progress", text=text.text, parts=text.parts,
            index=len(pieces) - 1,
        )  # fmt: skip

    def said(self, index: int) -> tuple[int, str, list[dict[str, Any]]]:
        """What a client shows that has every piece up to `index`."""
        content = msgspec.json.decode(state_data(self.state(index + 1)))["content"]
        return index, content["text"], content["parts"]


class _World:
    """One project's answers, its tail in this process, and the streams that are open."""

    def __init__(self) -> None:
        self.stored = [_Stored(each) for each in _IDS]
        self.unpublished: list[list[int]] = [[], []]
        self.followed = FollowedAnswers()
        self.tail: list[bytes] = []
        # The newest piece of each that came through the tail.
        self.arrived = [-2, -2]
        self.readers: list[AnswerReader] = []
        # Streams whose replay goes on: where live began for each.
        self.opening: list[int] = []
        self.read: list[AnswerState] | None = None
        self.is_reading = False
        self.polled: tuple[list[AnswerProgress], dict[str, int]] | None = None

    def do(self, step: str, n: int) -> None:
        name = step.replace(" ", "_")
        action: Callable[[int], None] = getattr(self, name)
        action(n)

    # The writer, and Redis.

    def begin(self, n: int) -> None:
        self.begin_unheard(n)
        if self.stored[n].is_unfinished:
            self.followed.saw_begin(_IDS[n])
            self.arrived[n] = max(self.arrived[n], -1)
            empty = sse.event_frame("answer.state", state_data(_Stored(_IDS[n]).state()))
            for reader in self.readers:
                reader.take(empty)

    def begin_unheard(self, n: int) -> None:
        self.stored[n].has_begun = True

    def store(self, n: int) -> None:
        stored = self.stored[n]
        if stored.is_unfinished:
            self.unpublished[n].append(len(stored.pieces))
            stored.pieces.append(_piece(len(stored.pieces)))

    def publish(self, n: int) -> None:
        if self.unpublished[n]:
            self._arrive(n, self.unpublished[n].pop(0))

    def publish_late(self, n: int) -> None:
        if self.unpublished[n]:
            self._arrive(n, self.unpublished[n].pop())

    def lose(self, n: int) -> None:
        if self.unpublished[n]:
            self.unpublished[n].pop(0)

    def repeat(self, n: int) -> None:
        if self.stored[n].pieces and not self.unpublished[n]:
            self._arrive(n, len(self.stored[n].pieces) // 2)

    def _arrive(self, n: int, index: int) -> None:
        stored = self.stored[n]
        data = delta_data(stored.state().answer, index, stored.pieces[index])
        self._put(sse.event_frame("message.delta", data))
        self.arrived[n] = max(self.arrived[n], index)

    def end(self, n: int) -> None:
        self.stored[n].has_ended = self.stored[n].has_begun

    def end_arrives(self, n: int) -> None:
        if self.stored[n].has_ended:
            ended = msgspec.structs.replace(
                message(n + 1),
                message_id=_IDS[n],
                content=msgspec.structs.replace(message(1).content, type="assistant"),
            )
            self._put(sse.message_frame(n + 1, encode(ended)))
            self.arrived[n] = _ENDED

    def _put(self, frame: bytes) -> None:
        self.tail.append(frame)
        self.followed.saw(frame)
        for reader in self.readers:
            reader.take(frame)

    # Streams that open.

    def read_(self, n: int) -> None:
        if not self.is_reading:
            self.is_reading = True
            self.followed.begin_read()
            self.read = None

    def read_is_served(self, n: int) -> None:
        if self.is_reading and self.read is None:
            self.read = [each.state() for each in self.stored if each.is_unfinished]

    def read_ends(self, n: int) -> None:
        if self.is_reading:
            self.read_is_served(n)
            self.is_reading = False
            self.followed.end_read(self.read)

    def read_fails(self, n: int) -> None:
        if self.is_reading:
            self.is_reading = False
            self.followed.end_read(None)

    def open(self, n: int) -> None:
        if self.followed.is_stale:
            self.read_ends(n)
            self.read_(n)
            self.read_ends(n)
        self.open_slowly(n)
        self.opened(n)
        shown = self.readers[-1].answers
        for stored, arrived in zip(self.stored, self.arrived, strict=True):
            if arrived == _ENDED:
                assert stored.id not in shown
            elif stored.is_unfinished and arrived > -2:
                assert shown[stored.id].index >= arrived

    def open_slowly(self, n: int) -> None:
        self.opening.append(len(self.tail))

    def opened(self, n: int) -> None:
        if self.opening:
            reader, live = AnswerReader(), self.opening.pop()
            for frame in [*self.followed.frames(), *self.tail[live:]]:
                reader.take(frame)
            self.readers.append(reader)

    # The poll, while Redis does not deliver.

    def poll(self, n: int) -> None:
        self.poll_begins(n)
        self.poll_ends(n)
        for reader in self.readers:
            for stored in self.stored:
                shown = reader.answers.get(stored.id)
                if stored.is_unfinished:
                    assert shown is not None
                    assert shown.said == stored.said(len(stored.pieces) - 1)

    def poll_begins(self, n: int) -> None:
        before = dict(self.followed.begin_poll())
        progress = [
            AnswerProgress(each.id, "p", len(each.pieces) - 1, True, 0.0)
            for each in self.stored
            if each.is_unfinished
        ]
        self.polled = progress, before

    def poll_ends(self, n: int) -> None:
        if self.polled is None:
            return
        (progress, before), self.polled = self.polled, None
        self.followed.end_poll(progress, before)
        lacking = self.followed.lacking(progress, delivers=False)
        through = {each.id: self.followed.through(each.id) for each in lacking}
        if any(self.followed.index(each.id) < each.index for each in lacking):
            self.read_ends(n)
            self.read_(n)
            self.read_ends(n)
        for each in lacking:
            index, frame = self.followed.frame(each.id)
            if index > through[each.id]:
                self.followed.saw_state(each.id, index)
                self._put(frame)

    def check(self) -> None:
        for stored in self.stored:
            for reader in self.readers:
                shown = reader.answers.get(stored.id)
                if shown is not None and not shown.has_ended:
                    assert shown.index < len(stored.pieces)
                    if shown.index > -2:
                        assert shown.said == stored.said(shown.index)
                if stored.is_unfinished and self.followed.through(stored.id) > -2:
                    assert shown is not None
                    assert shown.index >= self.followed.through(stored.id)


@given(_steps)
def test_a_stream_shows_a_prefix_and_after_a_poll_everything(steps: list[tuple[str, int]]) -> None:
    """§6: no piece falls between a state and what follows it, whatever was lost or came late."""
    world = _World()
    for step in ("begin", "store", "publish"):
        world.do(step, 0)
    for step, n in steps:
        world.do("read_" if step == "read" else step, n)
        world.check()
    world.poll(0)
