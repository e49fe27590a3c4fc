"""Judge the answers that clients saw while they were written: docs/protocol.md §5 and §6.

Pure. Messages as such are judged by `checker.py`; here it is whether an answer ends as the one
message that its writer and the members made of it. What clients showed of it before is judged in
`shown_checker.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from tests.support.answer_fold import AnswerFold, begins_with
from tests.support.answer_history import (
    AskedAnswer,
    StopRequest,
    WrittenAnswer,
    parts_of,
)
from tests.support.history import ClientHistory, LogRow, Post
from tests.support.shown_checker import EndedAnswer, check_shown, difference
from tests.support.violations import Kind, Violation

ANSWER_KINDS = frozenset(
    {
        Kind.ANSWER_UNENDED, Kind.ANSWER_REPEAT, Kind.ANSWER_WRONG, Kind.STOP_LOST,
        Kind.PIECE_LOST, Kind.PIECE_CHANGED, Kind.STATE_WRONG, Kind.SHOWN_LOST, Kind.SHOWN_LATE,
    }
)  # fmt: skip

_STATUS_OF_TYPE = {"answer": "completed", "answer_stopped": "stopped", "answer_failed": "failed"}


class Recorded(msgspec.Struct, frozen=True, kw_only=True):
    """Everything about one project's answers, after all of them have ended.

    `requests` are the questions posted, answered or not; `asked` the answers acknowledged for them
    or to writers outside (`written`). `log` is the whole log in the order of seqs. `keeps_pieces`:
    Redis lost nothing, so a client whose stream was open from the question to the message of a
    complete answer of the service's assistant that nobody asked to stop has received every piece
    before the message.
    """

    requests: Sequence[Post]
    asked: Sequence[AskedAnswer]
    stops: Sequence[StopRequest]
    written: Sequence[WrittenAnswer]
    clients: Sequence[ClientHistory]
    log: Sequence[LogRow]
    keeps_pieces: bool


def check_answers(recorded: Recorded) -> list[Violation]:
    """Judge one project's answers."""
    questions = {row.message_id: row.seq for row in recorded.log}
    ended: dict[str, EndedAnswer] = {}
    violations: list[Violation] = []
    for row in recorded.log:
        if row.answer_end is None:
            continue
        if row.message_id in ended:
            violations.append(Violation(Kind.ANSWER_REPEAT, row.seq, "it has ended before"))
            continue
        seq = questions.get(row.answer_end.reply_to or "")
        ended[row.message_id] = EndedAnswer(
            row, row.answer_end, parts_of(row.answer_end.parts), seq
        )
    violations += _check_asked(recorded, ended)
    violations += _check_ends(recorded, ended)
    violations += _check_stops(recorded, ended)
    violations += _check_written(recorded.written, ended)
    violations += check_shown(recorded.clients, ended, whole=_shown_whole(recorded, ended))
    return violations


def _shown_whole(recorded: Recorded, ended: dict[str, EndedAnswer]) -> set[str]:
    """Return the answers whose last piece is before their message."""
    if not recorded.keeps_pieces:
        return set()
    # A stop that comes with the last piece ends the answer at once, with the whole text. Of a
    # writer outside one process may publish the last piece, and another the message.
    others = {stop.message_id for stop in recorded.stops}
    others |= {written.message_id for written in recorded.written}
    complete = {message_id for message_id, each in ended.items() if each.end.type == "answer"}
    return complete - others


def _check_asked(recorded: Recorded, ended: dict[str, EndedAnswer]) -> Iterable[Violation]:
    """Every acknowledged answer has ended, and nobody else's; a repeat has the first result."""
    posted = {(post.user_id, post.client_msg_id) for post in recorded.requests}
    legal = {
        row.message_id for row in recorded.log if (row.user_id, row.client_msg_id or "") in posted
    }
    outside = {written.message_id for written in recorded.written}
    first: dict[tuple[str, str | None], str] = {}
    for asked in recorded.asked:
        if asked.message_id not in ended:
            detail = f"answer {asked.message_id} has no message"
            yield Violation(Kind.ANSWER_UNENDED, None, detail)
        if asked.message_id in outside:
            # Several writers may answer one message.
            continue
        request = (asked.reply_to, asked.regenerates)
        if first.setdefault(request, asked.message_id) != asked.message_id:
            detail = f"answer {asked.message_id} was {first[request]} before"
            yield Violation(Kind.ACK_TWICE, None, detail)
    known = {asked.message_id for asked in recorded.asked}
    answered: set[tuple[str, str | None]] = set()
    for message_id, answer in ended.items():
        reply_to = answer.end.reply_to or ""
        if message_id not in known and reply_to not in legal:
            yield Violation(Kind.INVENTED, answer.row.seq, "an answer that nobody asked for")
        request = (reply_to, answer.end.regenerates)
        if message_id not in outside and request in answered:
            detail = f"another answer to message {reply_to}"
            yield Violation(Kind.ANSWER_REPEAT, answer.row.seq, detail)
        if message_id not in outside:
            answered.add(request)


def _check_ends(recorded: Recorded, ended: dict[str, EndedAnswer]) -> Iterable[Violation]:
    """The message's type, `replyTo` and text are what the answer's writer made of it."""
    stoppers: dict[str, set[str]] = {}
    for stop in recorded.stops:
        stoppers.setdefault(stop.message_id, set()).add(stop.user_id)
    intended = {asked.message_id: asked for asked in recorded.asked}
    for message_id, answer in ended.items():
        seq, end = answer.row.seq, answer.end
        if end.type not in _STATUS_OF_TYPE:
            yield Violation(Kind.ANSWER_WRONG, seq, f"of type {end.type}")
        if end.type == "answer_stopped":
            if end.stopped_by not in stoppers.get(message_id, set()):
                yield Violation(Kind.ANSWER_WRONG, seq, f"stopped by {end.stopped_by}, who did not")
        elif end.stopped_by is not None:
            yield Violation(Kind.ANSWER_WRONG, seq, f"{end.type} names who stopped it")
        asked = intended.get(message_id)
        if asked is None:
            continue
        if end.regenerates != asked.regenerates:
            detail = f"it regenerates {end.regenerates}, not {asked.regenerates}"
            yield Violation(Kind.ANSWER_WRONG, seq, detail)
        if end.reply_to != asked.reply_to:
            detail = f"it answers {end.reply_to}, not {asked.reply_to}"
            yield Violation(Kind.ANSWER_WRONG, seq, detail)
        if end.type == "answer" and answer.row.text != asked.intended:
            detail = f"complete, with another text: {difference(asked.intended, answer.row.text)}"
            yield Violation(Kind.ANSWER_WRONG, seq, detail)
        elif not asked.intended.startswith(answer.row.text):
            detail = f"never written: {difference(asked.intended, answer.row.text)}"
            yield Violation(Kind.ANSWER_WRONG, seq, detail)


def _check_stops(recorded: Recorded, ended: dict[str, EndedAnswer]) -> Iterable[Violation]:
    """An accepted stop is kept by whoever ends the answer, also when its writer died."""
    for message_id in {stop.message_id for stop in recorded.stops if stop.accepted}:
        answer = ended.get(message_id)
        if answer is None:
            detail = f"answer {message_id} was to be stopped, and has no message"
            yield Violation(Kind.ANSWER_UNENDED, None, detail)
        elif answer.end.type == "answer_failed":
            yield Violation(Kind.STOP_LOST, answer.row.seq, "stopped, and ended as failed")


def _check_written(
    written: Sequence[WrittenAnswer], ended: dict[str, EndedAnswer]
) -> Iterable[Violation]:
    """What was acknowledged to a writer outside is in the message, which ends as it was told."""
    for each in written:
        answer = ended.get(each.message_id)
        if answer is None:
            # Reported as unended.
            continue
        seq = answer.row.seq
        kept = AnswerFold()
        for piece in each.pieces:
            kept.piece(piece)
        if not answer.row.text.startswith(kept.text):
            detail = f"acknowledged text is missing: {difference(kept.text, answer.row.text)}"
            yield Violation(Kind.PIECE_LOST, seq, detail)
        if not begins_with(answer.parts, kept.parts):
            yield Violation(Kind.PIECE_LOST, seq, f"acknowledged parts are missing: {kept.parts}")
        status = _STATUS_OF_TYPE.get(answer.end.type)
        if each.status not in (None, status):
            detail = f"its writer was told {each.status}, and it is {status}"
            yield Violation(Kind.ANSWER_WRONG, seq, detail)
