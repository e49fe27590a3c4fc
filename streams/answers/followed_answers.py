"""What one tail's readers were shown of unfinished answers, and what those answers say so far.

Pure. Two things are followed of an answer, and they differ:

    through   the last piece without a hole before it that came through the tail: every open stream
              of this process has at least that
    known     its text and parts as the database had them at the last read, and the pieces that came
              through the tail since: what a stream that opens is shown

Pieces are stored before they are put into a stream, so a read that begins now has every piece that
came through the tail before. Those that come during the read are held until it ends. Other programs
with access to Redis can put anything into a stream: only an answer that the database has is known,
so that nothing else takes memory here or is shown to a stream that opens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from streams.answers.answer_events import MESSAGE_DELTA, Delta, read_answer_id, read_delta
from streams.answers.answer_values import AnswerProgress, AnswerState
from streams.answers.known_answer import KnownAnswer
from streams.model import sse
from streams.model.lru_map import LruMap

MAX_KNOWN = 100
_MAX_THROUGH = 1000
_MAX_ENDED = 1000
_MAX_HELD_BYTES = 256 * 1024
# Of a held piece beside its text or data.
_PIECE_BYTES = 200
# A piece that was stored so recently may still be on its way through Redis.
_GRACE_S = 1.0
# Before the answer's beginning, which counts as the piece -1.
NOTHING = -2

_DELTA_HEAD = f"event: {MESSAGE_DELTA}\n".encode()
_MESSAGE_HEAD = b"event: message.new\n"


class FollowedAnswers:
    """The unfinished answers of one tail's project. `is_stale`: only a read can tell what is new.

    At most `MAX_KNOWN` answers are known; text and parts of each are bounded by `AnswerText`.
    """

    def __init__(self) -> None:
        self.is_stale = True
        self._known: dict[str, KnownAnswer] = {}
        self._through = LruMap[str, int](_MAX_THROUGH)
        # So that a read that began before an answer's end does not bring it back.
        self._ended = LruMap[str, None](_MAX_ENDED)
        # While the database is read: the pieces that could not be added, and what began.
        self._held: dict[str, list[Delta]] | None = None
        self._held_bytes = 0
        # How far the answers were at the last poll.
        self._polled: dict[str, int] = {}
        self._was_shown = False

    def restart(self) -> None:
        """Forget everything: the log was restored to an earlier state."""
        self._known.clear()
        self._through.clear()
        self._ended.clear()
        self._polled.clear()
        self._was_shown = True
        self.is_stale = True

    # What comes through the tail.

    def saw(self, frame: bytes) -> None:
        """Take a frame of the tail into account."""
        if frame.startswith(_DELTA_HEAD):
            delta = read_delta(sse.data_of(frame))
            if delta is not None:
                self._saw_delta(delta)
        elif frame.startswith(_MESSAGE_HEAD) and self._may_end:
            answer_id = read_answer_id(sse.data_of(frame))
            if answer_id is not None:
                self._saw_end(answer_id)

    @property
    def _may_end(self) -> bool:
        return bool(self._known or len(self._through) or self._held is not None)

    def _saw_delta(self, delta: Delta) -> None:
        if delta.answer_id in self._ended:
            return
        through = self._through.peek(delta.answer_id)
        if delta.index == (0 if through is None else through + 1):
            self._through.put(delta.answer_id, delta.index)
        known = self._known.get(delta.answer_id)
        if known is None or not known.take(delta):
            self._hold(delta.answer_id, delta)

    def _saw_end(self, answer_id: str) -> None:
        self._ended.put(answer_id, None)
        self._known.pop(answer_id, None)
        self._through.pop(answer_id)

    def saw_begin(self, answer_id: str) -> None:
        """Note that all open streams were told that an answer begins."""
        if answer_id in self._ended:
            return
        if self._through.peek(answer_id) is None:
            self._through.put(answer_id, -1)
        if answer_id not in self._known:
            self._hold(answer_id, None)

    def saw_state(self, answer_id: str, index: int) -> None:
        """Note that a state with this index was put into the tail."""
        if index > self.through(answer_id):
            self._through.put(answer_id, index)

    def _hold(self, answer_id: str, delta: Delta | None) -> None:
        size = _PIECE_BYTES
        if delta is not None:
            size += 4 * len(delta.piece.delta) + len(delta.piece.data)
        self.is_stale = True
        if self._held is None:
            return
        self._held_bytes += size
        if self._held_bytes > _MAX_HELD_BYTES:
            return
        held = self._held.setdefault(answer_id, [])
        if delta is not None:
            held.append(delta)

    # Reads of the database.

    def begin_read(self) -> None:
        """Hold what comes from now on: the read that begins may have it or not."""
        self._held = {}
        self._held_bytes = 0

    def end_read(self, states: Sequence[AnswerState] | None) -> None:
        """Join what was read, newest answers first, with what came meanwhile; None: it failed."""
        held, self._held = self._held or {}, None
        if states is None:
            self.is_stale = True
            return
        known: dict[str, KnownAnswer] = {}
        for state in reversed(states[:MAX_KNOWN]):
            answer_id = state.answer.id
            if answer_id in self._ended:
                continue
            before = self._known.get(answer_id)
            is_older = before is not None and before.index >= state.index
            known[answer_id] = before if is_older and before else KnownAnswer(state)
            if not self._was_shown:
                # Every stream of this tail will be shown this state, or a newer one.
                self.saw_state(answer_id, state.index)
        self._known = known
        joined = [
            self._join(answer_id, deltas)
            for answer_id, deltas in held.items()
            if answer_id not in self._ended
        ]
        self.is_stale = self._held_bytes > _MAX_HELD_BYTES or not all(joined)

    def _join(self, answer_id: str, deltas: list[Delta]) -> bool:
        known = self._known.get(answer_id)
        return known is not None and all(known.take(delta) for delta in deltas)

    # What streams are shown.

    def frames(self) -> list[bytes]:
        """Return the frame of `answer.state` of each known answer, for a stream that opens now."""
        self._was_shown = True
        for answer_id in list(self._through):
            # This stream has less than the others, because a read failed: a poll shall notice.
            index = self.index(answer_id)
            if index == NOTHING:
                self._through.pop(answer_id)
            elif index < self.through(answer_id):
                self._through.put(answer_id, index)
        return [known.frame for known in self._known.values()]

    def frame(self, answer_id: str) -> tuple[int, bytes]:
        """Return an answer's last index and its frame; `NOTHING` when it is not known."""
        known = self._known.get(answer_id)
        return (NOTHING, b"") if known is None else (known.index, known.frame)

    def index(self, answer_id: str) -> int:
        """Return the last piece of an answer that is known; `NOTHING` when the answer is not."""
        known = self._known.get(answer_id)
        return NOTHING if known is None else known.index

    def through(self, answer_id: str) -> int:
        """Return the last piece that came through the tail without a hole before it."""
        through = self._through.peek(answer_id)
        return NOTHING if through is None else through

    # Polls of how far the answers are.

    def begin_poll(self) -> Mapping[str, int]:
        """Return the answers that are followed before a poll begins, and how far they are."""
        ids = [*self._known, *self._through]
        return {each: max(self.index(each), self.through(each)) for each in ids}

    def end_poll(self, progress: Sequence[AnswerProgress], before: Mapping[str, int]) -> None:
        """Forget what the database does not have: answers that ended, and pieces of others.

        `before` is what `begin_poll` returned, `progress` are all unfinished answers.
        """
        stored = {each.id: each.index for each in progress}
        for answer_id, index in before.items():
            found = stored.get(answer_id)
            if found is None:
                self._known.pop(answer_id, None)
                self._through.pop(answer_id)
            elif index > found:
                self._known.pop(answer_id, None)
                self._through.put(answer_id, found)
                self.is_stale = True

    def lacking(
        self, progress: Sequence[AnswerProgress], *, delivers: bool
    ) -> list[AnswerProgress]:
        """Return the answers of which stored pieces, or the beginning, did not come through.

        While Redis `delivers`, what was stored since the last poll may still be on its way.
        """
        before, self._polled = self._polled, {each.id: each.index for each in progress}
        lacking = []
        for each in progress:
            through = self.through(each.id)
            if not each.is_streamed or each.id in self._ended or each.index <= through:
                continue
            if not delivers or each.age_s > _GRACE_S or before.get(each.id, NOTHING) > through:
                lacking.append(each)
        return lacking
