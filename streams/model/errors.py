"""What can go wrong in the library, as one tree. Drivers' exceptions never leave their own file.

    StreamsError
    ├── InvalidInput              a value breaks a rule of the protocol; `field` names it
    │   └── PayloadTooLarge       a text or a body is above its limit
    ├── ProjectNotFound           no such project
    ├── ProjectExists             the id is taken by another owner
    ├── IdempotencyMismatch       the client_msg_id was used before, with another content
    ├── LogRestored               the log lacks what a reader was given: it was restored
    ├── Unavailable               it may work later; `retry_after_s` says when to try
    │   ├── LogUnavailable        Postgres does not serve this; a write's outcome is unknown
    │   │   └── Contended         another transaction was in the way; nothing was written
    │   ├── WindowUnavailable     Redis does not answer, or not with what was asked for
    │   │   ├── WindowRefused     it answered with an error: it is full, read-only, no master
    │   │   └── WindowBusy        every connection of this process is in use: nothing is known
    │   └── Overloaded            a bounded queue of this process is full
    └── Closed                    the object was closed

HTTP statuses do not belong here.
"""

from __future__ import annotations


class StreamsError(Exception):
    """Base of all errors of the library."""


class InvalidInput(StreamsError):
    """A value breaks a rule of the protocol; `field` names it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field = field
        self.message = message


class PayloadTooLarge(InvalidInput):
    """A text or a body is above its limit (`limit_bytes`)."""

    def __init__(self, field: str, limit_bytes: int) -> None:
        super().__init__(field, f"is larger than {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


class ProjectNotFound(StreamsError):
    """There is no such project."""

    def __init__(self, project_id: str) -> None:
        super().__init__("no such project")
        self.project_id = project_id


class ProjectExists(StreamsError):
    """The project's id is taken by another owner."""

    def __init__(self, project_id: str) -> None:
        super().__init__("the project id is taken")
        self.project_id = project_id


class IdempotencyMismatch(StreamsError):
    """The client_msg_id was used before by this user in this project, with another content.

    `seq` is that of the earlier message when it is known; `index` is the place in the batch.
    """

    def __init__(self, client_msg_id: str, *, seq: int | None = None, index: int = 0) -> None:
        super().__init__("client_msg_id was used before with another content")
        self.client_msg_id = client_msg_id
        self.seq = seq
        self.index = index


class LogRestored(StreamsError):
    """The log lacks messages that this reader was given: it was restored from a backup.

    `head` is where the project then stood; reading the same reader again goes on after it.
    """

    def __init__(self, head: int) -> None:
        super().__init__("the log was restored to an earlier state")
        self.head = head


class Unavailable(StreamsError):
    """It may work later: try again after `retry_after_s` seconds, with the same client_msg_id."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class LogUnavailable(Unavailable):
    """Postgres or its schema does not serve this now. Whether a write was committed is unknown."""


class Contended(LogUnavailable):
    """Another transaction was in the way (a locked row, a deadlock). Nothing was written."""


class WindowUnavailable(Unavailable):
    """Redis does not answer, or not with what was asked for."""


class WindowRefused(WindowUnavailable):
    """Redis answered with an error, and did nothing: it is full, read-only, no longer the master.

    Or what was asked for cannot be done with what is there under the key.
    """


class WindowBusy(WindowUnavailable):
    """No connection of this process became free in time, or the key is on its way elsewhere.

    It says nothing about whether a server is well.
    """


class Overloaded(Unavailable):
    """A bounded queue of this process is full."""


class Closed(StreamsError):
    """The object was closed."""
