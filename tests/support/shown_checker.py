"""Judge what clients showed of answers before their messages: docs/protocol.md §5 and §6.

Pure. Shown is kept: at all times it is a beginning of the message. What one client shows is in
`answer_fold.py`; how answers end is judged in `answer_checker.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec

from tests.support.answer_fold import AnswerFold, begins_with
from tests.support.answer_history import Piece, ShownPart, State, piece_of, state_of
from tests.support.history import AnswerEnd, ClientHistory, Connection, LogRow, log_row
from tests.support.violations import Kind, Violation

_SHOWN_CHARACTERS = 60


class EndedAnswer(msgspec.Struct, frozen=True):
    """An answer's message, and the seq of the message that it answers (None: not in the log)."""

    row: LogRow
    end: AnswerEnd
    parts: tuple[ShownPart, ...]
    question_seq: int | None


def check_shown(
    clients: Sequence[ClientHistory], ended: Mapping[str, EndedAnswer], *, whole: Collection[str]
) -> Iterable[Violation]:
    """Judge all clients of a project against its answers' messages, by message id.

    Of the answers in `whole`, a client whose stream was open since the question has shown
    everything before the message.
    """
    shown = _Shown(ended, whole)
    for client in clients:
        yield from shown.check_client(client)
    yield from shown.check_states()


class _Shown:
    """Judges what clients showed of the answers before their messages."""

    def __init__(self, ended: Mapping[str, EndedAnswer], whole: Collection[str]) -> None:
        self._ended = ended
        self._whole = {message_id: ended[message_id] for message_id in whole}
        self._pieces: dict[str, dict[int, tuple[Piece, str]]] = {}
        self._states: dict[tuple[str, int], tuple[State, str]] = {}

    def check_client(self, client: ClientHistory) -> Iterable[Violation]:
        """Follow what one client shows over all its connections."""
        folds: dict[str, AnswerFold] = {}
        reported: set[str] = set()
        for number, connection in enumerate(client.connections):
            throughout = self._open_throughout(connection)
            for event in connection.events:
                try:
                    if event.name == "message.delta":
                        content: Piece | State = piece_of(event)
                    elif event.name == "answer.state":
                        content = state_of(event)
                    else:
                        if event.name == "message.new" and event.event_id in throughout:
                            yield from self._check_whole(event.data, folds, client.name, number)
                        continue
                except msgspec.DecodeError as error:
                    detail = f"unreadable {event.name}: {error}"
                    yield Violation(Kind.CHANGED, None, detail, client.name, number)
                    continue
                fold = folds.setdefault(content.message_id, AnswerFold())
                yield from self._take(content, fold, client.name, number)
                wrong = self._wrong(content.message_id, fold)
                if wrong is not None and content.message_id not in reported:
                    reported.add(content.message_id)
                    yield Violation(*wrong, client.name, number)

    def _open_throughout(self, connection: Connection) -> set[str]:
        """Return the seqs of the messages before which the client must have shown all of them."""
        new = {event.event_id for event in connection.events if event.name == "message.new"}
        return {
            str(answer.row.seq)
            for answer in self._whole.values()
            if str(answer.question_seq) in new
        }

    def _take(
        self, content: Piece | State, fold: AnswerFold, client: str, number: int
    ) -> Iterable[Violation]:
        """Apply a piece or a state, and compare it with what others received under its index."""
        where = f"answer {content.message_id}, index {content.index}"
        if isinstance(content, Piece):
            fold.piece(content)
            pieces = self._pieces.setdefault(content.message_id, {})
            first, at = pieces.setdefault(content.index, (content, client))
            if first != content:
                detail = f"{where}: {at} received another piece"
                yield Violation(Kind.PIECE_CHANGED, None, detail, client, number)
            return
        fold.state(content)
        known, at = self._states.setdefault((content.message_id, content.index), (content, client))
        if known != content:
            detail = f"{where}: {at} received another state"
            yield Violation(Kind.STATE_WRONG, None, detail, client, number)

    def _wrong(self, message_id: str, fold: AnswerFold) -> tuple[Kind, int | None, str] | None:
        answer = self._ended.get(message_id)
        if answer is None:
            return Kind.INVENTED, None, f"answer {message_id} was shown, and has no message"
        if not answer.row.text.startswith(fold.text):
            detail = f"up to piece {fold.index}: {difference(fold.text, answer.row.text)}"
            return Kind.SHOWN_LOST, answer.row.seq, detail
        if not begins_with(answer.parts, fold.parts):
            detail = f"up to piece {fold.index}: the message has not the parts {fold.parts}"
            return Kind.SHOWN_LOST, answer.row.seq, detail
        return None

    def _check_whole(
        self, data: bytes, folds: dict[str, AnswerFold], client: str, number: int
    ) -> Iterable[Violation]:
        answer = self._ended[log_row(data).message_id]
        shown = folds.get(answer.row.message_id, AnswerFold())
        if (shown.text, tuple(shown.parts)) != (answer.row.text, answer.parts):
            detail = f"shown before: {difference(shown.text, answer.row.text)}"
            yield Violation(Kind.SHOWN_LATE, answer.row.seq, detail, client, number)

    def check_states(self) -> Iterable[Violation]:
        """Compare each state with the pieces it stands for, where all of them are known."""
        wanted: dict[str, list[State]] = {}
        for state, client in self._states.values():
            wanted.setdefault(state.message_id, []).append(state)
            answer = self._ended.get(state.message_id)
            if state.status != "in_progress" or (answer and answer.end.reply_to != state.reply_to):
                detail = f"answer {state.message_id}: {state.status}, reply to {state.reply_to}"
                yield Violation(Kind.STATE_WRONG, None, detail, client)
        for message_id, states in wanted.items():
            fold = AnswerFold()
            pieces = self._pieces.get(message_id, {})
            for state in sorted(states, key=lambda each: each.index):
                while fold.index < state.index and fold.index + 1 in pieces:
                    fold.piece(pieces[fold.index + 1][0])
                known = (fold.text, tuple(fold.parts))
                if fold.index == state.index and known != (state.text, state.parts):
                    detail = f"answer {message_id}, index {state.index}: "
                    detail += difference(fold.text, state.text)
                    yield Violation(Kind.STATE_WRONG, None, detail)


def difference(expected: str, found: str) -> str:
    """Describe where two texts part, without the whole of them."""
    at = next(
        (n for n, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b),
        min(len(expected), len(found)),
    )
    ends = slice(at, at + _SHOWN_CHARACTERS)
    return (
        f"{len(expected)} and {len(found)} characters, from {at} on"
        f" {expected[ends]!r} and {found[ends]!r}"
    )
