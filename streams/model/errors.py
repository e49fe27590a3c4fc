"""The errors of the library, as one tree. Each driver's exceptions are translated in one file.

    StreamsError
    ├── InvalidInput              a value breaks a rule of the protocol; `field` names it
    │   └── PayloadTooLarge       a text or a body is above its limit
    ├── ProjectNotFound           no such project
    ├── ProjectExists             the id is taken by another owner
    ├── IdempotencyMismatch       the client_msg_id was used before, with another content
    ├── LogRestored               the log lacks what a reader already received: it was restored
    ├── Unavailable               a retry after `retry_after_s` seconds may succeed
    │   ├── LogUnavailable        Postgres does not serve this; a write's outcome is unknown
    │   │   └── Contended         another transaction held a lock; nothing was written
    │   ├── WindowUnavailable     Redis does not answer, or its answer is not usable
    │   │   ├── WindowRefused     Redis answered with an error: full, read-only, no master
    │   │   └── WindowBusy        all connections of this process are in use
    │   └── Overloaded            a bounded queue of this process is full
    └── Closed                    the object was closed

HTTP statuses do not belong here: they are in `service/http/api_errors.py`.
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

    `seq` is the earlier message's, when it is known; `index` is the position in the batch.
    """

    def __init__(self, client_msg_id: str, *, seq: int | None = None, index: int = 0) -> None:
        super().__init__("client_msg_id was used before with another content")
        self.client_msg_id = client_msg_id
        self.seq = seq
        self.index = index


class LogRestored(StreamsError):
    """The log lacks messages that this reader received: it was restored from a backup.

    `head` is the project's head after the restore; the same reader continues after it.
    """

    def __init__(self, head: int) -> None:
        super().__init__("the log was restored to an earlier state")
        self.head = head


class Unavailable(StreamsError):
    """A retry after `retry_after_s` seconds, with the same client_msg_id, may succeed."""

    def __init__(self, message: str, *, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class LogUnavailable(Unavailable):
    """Postgres or its schema cannot serve this now. Whether a write was committed is unknown."""


class Contended(LogUnavailable):
    """Another transaction conflicted (a locked row, a deadlock). Nothing was written."""


class WindowUnavailable(Unavailable):
    """Redis does not answer, or its answer is not usable."""


class WindowRefused(WindowUnavailable):
    """Redis refused a command and did nothing: it is full, read-only or no longer the master.

    Or the value of the key does not allow the command.
    """


class WindowBusy(WindowUnavailable):
    """No connection of this process became free in time, or the key is moving to another node.

    It says nothing about the health of a server.
    """


class Overloaded(Unavailable):
    """A bounded queue of this process is full."""


class Closed(StreamsError):
    """The object was closed."""
