"""What the client raises, as one tree. No exception of httpx leaves the room.

    ClientError
    ├── Refused              the service answered with an error; `status` and `code` name it
    │   ├── BadRequest       400: a field breaks a rule (`details` names it)
    │   ├── Unauthenticated  401: the token is missing, wrong or expired
    │   ├── AccessDenied     403: not a member, or the token lacks a scope
    │   └── Conflict         409: against what was before, as a client_msg_id with another content
    ├── AnswerStopped        a member stopped the answer that is being written
    ├── StreamEnded          the service ended the stream and asked not to reconnect
    ├── TokenFailed          the callable that renews the token failed
    ├── Unavailable          no answer within the timeout, after all retries
    ├── ProtocolViolation    the peer sent something other than this protocol
    │   └── TooLarge         a response or a block of a stream is above its bound
    └── ClientClosed         the client was closed, or not entered

Which of these are retried is decided where they are caught; none of them is an HTTP library's.
"""

from __future__ import annotations


class ClientError(Exception):
    """Base of all errors of the client."""


class Refused(ClientError):
    """The service answered with an error that a retry does not mend.

    `code` is the service's word for programs, `details` what it adds, `request_id` names the
    request in the service's logs.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: object = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.request_id = request_id


class BadRequest(Refused):
    """A field of the request breaks a rule; `details` names it."""


class Unauthenticated(Refused):
    """The token is missing, wrong or expired, and was not renewed."""


class AccessDenied(Refused):
    """The caller is not a member of the project, or the token lacks a scope."""


class Conflict(Refused):
    """The request contradicts an earlier one, as a client_msg_id with another content.

    Of an answer: `code` is `ANSWER_ENDED` or `ANSWER_IN_PROGRESS`.
    """


class AnswerStopped(ClientError):
    """A member of the project stopped the answer that is being written.

    It leaves the block that writes, and is not raised by the block's end.
    """

    def __init__(self, message_id: str) -> None:
        super().__init__(f"the answer was stopped: {message_id}")
        self.message_id = message_id


class StreamEnded(ClientError):
    """The service ended the stream and asked not to reconnect; `reason` is its word."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"the service ended the stream: {reason}")
        self.reason = reason


class TokenFailed(ClientError):
    """The callable that renews the token raised an exception (`__cause__`) or took too long."""


class Unavailable(ClientError):
    """No usable answer within the timeout, in `attempts` attempts; `last` says what came last.

    Whether a message was stored is unknown: sending it again with the same `client_msg_id` is safe.
    """

    def __init__(self, last: str, *, attempts: int, client_msg_id: str | None = None) -> None:
        super().__init__(f"no answer in time ({attempts} attempts, the last: {last})")
        self.last = last
        self.attempts = attempts
        self.client_msg_id = client_msg_id


class ProtocolViolation(ClientError):
    """The peer sent something other than this protocol; the address is probably wrong."""


class TooLarge(ProtocolViolation):
    """A response or a block of a stream is above its bound (`limit_bytes`)."""

    def __init__(self, what: str, limit_bytes: int) -> None:
        super().__init__(f"{what} is larger than {limit_bytes} bytes")
        self.limit_bytes = limit_bytes


class ClientClosed(ClientError):
    """The client is used outside its `async with`."""


_BY_STATUS: dict[int, type[Refused]] = {
    400: BadRequest,
    401: Unauthenticated,
    403: AccessDenied,
    409: Conflict,
}


def refused(
    status: int,
    code: str,
    message: str,
    *,
    details: object = None,
    request_id: str | None = None,
) -> Refused:
    """Return the error of a response with this status."""
    kind = _BY_STATUS.get(status, Refused)
    return kind(status, code, message, details=details, request_id=request_id)
