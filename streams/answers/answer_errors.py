"""Why a step of an answer is refused. Statuses of HTTP do not belong here."""

from __future__ import annotations

from streams.model.errors import StreamsError


class AnswerNotFound(StreamsError):
    """The project has no such answer, or no such message to answer."""


class AnswerEnded(StreamsError):
    """The answer has ended; nothing was written."""


class AnswerInProgress(StreamsError):
    """The answer is still being written."""


class AnswerHeld(StreamsError):
    """The answer is written by another worker."""


class IndexGap(StreamsError):
    """A piece's index is above the next one, which is `expected`; nothing was written."""

    def __init__(self, expected: int) -> None:
        super().__init__(f"expected piece {expected}")
        self.expected = expected


class TooManyAnswers(StreamsError):
    """A project or a worker has too many unfinished answers; nothing was written."""


class AnswerStopped(StreamsError):
    """Somebody stopped the answer that is being written, or it was taken away from its writer."""
