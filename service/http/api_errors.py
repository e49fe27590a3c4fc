"""Errors as a client sees them: the status, code and body of docs/protocol.md §4.

The only file that holds HTTP statuses of errors. It says what an error looks like, not when one
occurs: no checks of input, no access to servers, no framework. Which exception becomes which error
is in `error_mapping.py`, how one is sent in `error_answers.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec


class FieldError(msgspec.Struct, frozen=True):
    """What is wrong with one field of a request."""

    field: str
    message: str


class _Body(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    error: str
    code: str
    details: object = None
    requestId: str  # noqa: N815  # as clients read it


class ApiError(Exception):
    """An error response. `message` is one sentence for people, `code` is for programs.

    `details` is any value that JSON can hold. `retry_after_s` goes into `Retry-After`, rounded up.
    """

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        *,
        details: object = None,
        retry_after_s: float | None = None,
        extra_headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(f"{code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.retry_after_s = retry_after_s
        self._extra_headers = dict(extra_headers or {})

    def body(self, request_id: str) -> bytes:
        """Return the JSON body."""
        return msgspec.json.encode(
            _Body(error=self.message, code=self.code, details=self.details, requestId=request_id)
        )

    def headers(self) -> dict[str, str]:
        """Return the error's own headers, without type, length and request id."""
        headers = dict(self._extra_headers)
        if self.retry_after_s is not None:
            # Whole seconds, and never 0: a client that retries at once is refused again.
            headers["Retry-After"] = str(max(1, -int(-self.retry_after_s // 1)))
        return headers


def validation_failed(*wrong: FieldError, message: str | None = None) -> ApiError:
    """400: the request breaks a rule; each of `wrong` names a field."""
    if message is None:
        message = "; ".join(f"{each.field}: {each.message}" for each in wrong)
    return ApiError(
        400, "VALIDATION_FAILED", message or "The request is not valid", details=wrong or None
    )


def unauthenticated(message: str = "Authentication is required") -> ApiError:
    """401: the caller is not authenticated."""
    return ApiError(
        401,
        "UNAUTHENTICATED",
        message,
        extra_headers={"WWW-Authenticate": 'Bearer realm="seqstream"'},
    )


AuthenticationFailure = Literal[
    "missing",
    "ambiguous",
    "bad_signature",
    "clock_skew",
    "bad_user_id",
    "bad_scope",
    "bad_token",
    "expired_token",
    "early_token",
]
"""Why authentication failed: a metric's label. Not sent to the caller."""


class AuthenticationError(ApiError):
    """401: the caller is not authenticated; `reason` is for operators only."""

    def __init__(self, reason: AuthenticationFailure) -> None:
        denied = unauthenticated()
        super().__init__(denied.status, denied.code, denied.message, extra_headers=denied.headers())
        self.args = (reason,)
        self.reason: AuthenticationFailure = reason


def project_access_denied() -> ApiError:
    """403: no such project, or not a member. A caller must not be able to tell which."""
    return ApiError(403, "UNAUTHORIZED_PROJECT_ACCESS", "Project access denied")


def forbidden(message: str) -> ApiError:
    """403: an authenticated caller, who may not do this."""
    return ApiError(403, "FORBIDDEN", message)


def not_found(message: str = "There is nothing here") -> ApiError:
    """404."""
    return ApiError(404, "NOT_FOUND", message)


def method_not_allowed(allow: str | None = None) -> ApiError:
    """405; `allow` lists the allowed methods."""
    return ApiError(
        405,
        "METHOD_NOT_ALLOWED",
        "The method does not fit this address",
        # Sorted: the framework's order differs from process to process.
        extra_headers={"Allow": ", ".join(sorted(allow.split(", ")))} if allow else None,
    )


def idempotency_mismatch(details: object = None) -> ApiError:
    """409: the client_msg_id was used before with another content."""
    return ApiError(
        409,
        "IDEMPOTENCY_MISMATCH",
        "client_msg_id was used before with another content",
        details=details,
    )


def answer_ended() -> ApiError:
    """409: an answer that has ended takes no more pieces."""
    return ApiError(409, "ANSWER_ENDED", "The answer has ended")


def answer_in_progress() -> ApiError:
    """409: an answer that is being written cannot be written again."""
    return ApiError(409, "ANSWER_IN_PROGRESS", "The answer is still being written")


def index_gap(expected: int) -> ApiError:
    """409: pieces before the one that was sent are missing; `details` name the next one."""
    return ApiError(
        409,
        "INDEX_GAP",
        f"The next index is {expected}",
        details={"expected": expected},
    )


def payload_too_large(limit_bytes: int | None = None, field: str = "body") -> ApiError:
    """413. The connection is closed; the rest of the body is not read."""
    limit = "too large" if limit_bytes is None else f"larger than {limit_bytes} bytes"
    return ApiError(
        413,
        "PAYLOAD_TOO_LARGE",
        f"{field} is {limit}",
        details=(FieldError(field, f"is {limit}"),),
        extra_headers={"Connection": "close"},
    )


def body_too_late() -> ApiError:
    """408: the body did not arrive in time; the rest of it is not read."""
    return ApiError(
        408,
        "VALIDATION_FAILED",
        "The body did not arrive in time",
        extra_headers={"Connection": "close"},
    )


def body_required() -> ApiError:
    """400: there is no body."""
    return validation_failed(FieldError("body", "is required"))


def ended_too_early() -> ApiError:
    """400: the client went away before the end of its body. Nobody reads the response."""
    return validation_failed(FieldError("body", "ended too early"))


def malformed_request(message: str = "The request is not valid HTTP") -> ApiError:
    """400: where the next request would begin is unknown, so the connection is closed."""
    return ApiError(400, "VALIDATION_FAILED", message, extra_headers={"Connection": "close"})


def overloaded(retry_after_s: float = 1.0) -> ApiError:
    """503: the process holds as many bytes of unfinished requests as its limit allows."""
    return ApiError(
        503,
        "STORE_UNAVAILABLE",
        "The service is receiving too much at once; try again",
        retry_after_s=retry_after_s,
        extra_headers={"Connection": "close"},
    )


def unsupported_media_type() -> ApiError:
    """415: a body that is not JSON."""
    return ApiError(415, "UNSUPPORTED_MEDIA_TYPE", "The body must be application/json")


def rate_limited(retry_after_s: float, message: str = "Too many requests") -> ApiError:
    """429: a limit is reached; retry after `retry_after_s`."""
    return ApiError(429, "RATE_LIMITED", message, retry_after_s=retry_after_s)


def store_unavailable(retry_after_s: float = 1.0) -> ApiError:
    """503: the store does not answer. The request may have taken effect: repeat it unchanged."""
    return ApiError(
        503,
        "STORE_UNAVAILABLE",
        "The store is not available; try again",
        retry_after_s=retry_after_s,
    )


def internal() -> ApiError:
    """500: a bug. The response discloses nothing of it."""
    return ApiError(500, "INTERNAL", "Something went wrong here")
