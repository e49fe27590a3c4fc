"""Errors as a client sees them: status, code and body of PROTOCOL.md §4, and the request's id.

The only file that holds HTTP statuses of errors. It decides how a failure is told, never what is
one: no checks of input, no access to servers.
"""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Final

import msgspec
from litestar import Request, Response
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException, ValidationException
from litestar.types import ASGIApp, ExceptionHandlersMap, Message, Receive, Scope, Send

from service.access.credentials import AuthenticationError
from service.telemetry.metrics import Metrics
from streams.model.errors import (
    Closed,
    IdempotencyMismatch,
    InvalidInput,
    PayloadTooLarge,
    ProjectExists,
    ProjectNotFound,
    Unavailable,
)

_log = logging.getLogger(__name__)

JSON: Final = "application/json"
SECURITY_HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
"""What every answer carries; one that has its own keeps it."""
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._-]{1,128}")
_SCOPE_KEY: Final = "seqstream.request_id"


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
    """An answer that is an error. `message` is one sentence for people, `code` is for programs.

    `details` is anything that can be JSON. `retry_after_s` goes into `Retry-After`, rounded up.
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
        """Return the headers that belong to the error, but type, length and request id."""
        headers = dict(self._extra_headers)
        if self.retry_after_s is not None:
            # Whole seconds, and never 0: a client that comes back at once is refused again.
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
    """401: the caller is not known."""
    return ApiError(
        401,
        "UNAUTHENTICATED",
        message,
        extra_headers={"WWW-Authenticate": 'Bearer realm="seqstream"'},
    )


def project_access_denied() -> ApiError:
    """403: no such project, or not a member. The two must not be told apart."""
    return ApiError(403, "UNAUTHORIZED_PROJECT_ACCESS", "Project access denied")


def forbidden(message: str) -> ApiError:
    """403: a known caller, who may not do this."""
    return ApiError(403, "FORBIDDEN", message)


def not_found(message: str = "There is nothing here") -> ApiError:
    """404."""
    return ApiError(404, "NOT_FOUND", message)


def method_not_allowed(allow: str | None = None) -> ApiError:
    """405; `allow` lists the methods that would do."""
    return ApiError(
        405,
        "METHOD_NOT_ALLOWED",
        "The method does not fit this address",
        # The framework lists them in another order in each process.
        extra_headers={"Allow": ", ".join(sorted(allow.split(", ")))} if allow else None,
    )


def idempotency_mismatch(details: object = None) -> ApiError:
    """409: the client_msg_id was used before, with another content."""
    return ApiError(
        409,
        "IDEMPOTENCY_MISMATCH",
        "client_msg_id was used before with another content",
        details=details,
    )


def payload_too_large(limit_bytes: int | None = None, field: str = "body") -> ApiError:
    """413. The connection is closed: what is left of the body is not read."""
    limit = "too large" if limit_bytes is None else f"larger than {limit_bytes} bytes"
    return ApiError(
        413,
        "PAYLOAD_TOO_LARGE",
        f"{field} is {limit}",
        details=(FieldError(field, f"is {limit}"),),
        extra_headers={"Connection": "close"},
    )


def body_too_late() -> ApiError:
    """408: the rest of the body did not come; what is left of it is not read."""
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
    """400: the client went away within its body. Nobody reads the answer."""
    return validation_failed(FieldError("body", "ended too early"))


def malformed_request(message: str = "The request is not valid HTTP") -> ApiError:
    """400: what follows on the connection cannot be told apart from the request; it is closed."""
    return ApiError(400, "VALIDATION_FAILED", message, extra_headers={"Connection": "close"})


def overloaded(retry_after_s: float = 1.0) -> ApiError:
    """503: the process holds as many bytes of unfinished requests as it may."""
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
    """429: a limit is reached; `retry_after_s` is when it will have passed."""
    return ApiError(429, "RATE_LIMITED", message, retry_after_s=retry_after_s)


def store_unavailable(retry_after_s: float = 1.0) -> ApiError:
    """503: the store does not answer. What was asked may have been done: repeat it as it was."""
    return ApiError(
        503,
        "STORE_UNAVAILABLE",
        "The store is not available; try again",
        retry_after_s=retry_after_s,
    )


def internal() -> ApiError:
    """500: a bug. Nothing of it is told."""
    return ApiError(500, "INTERNAL", "Something went wrong here")


def invalid_body(error: msgspec.DecodeError | UnicodeDecodeError | RecursionError) -> ApiError:
    """400: what msgspec says of a body that it could not decode, by field where it names one."""
    if not isinstance(error, msgspec.ValidationError):
        reason = "is nested too deep" if isinstance(error, RecursionError) else "is not valid JSON"
        return validation_failed(FieldError("body", reason))
    text, _, place = str(error).partition(" - at `$")
    return validation_failed(_field_error(place.rstrip("`").lstrip("."), text))


def _invalid_input(error: InvalidInput) -> ApiError:
    return validation_failed(FieldError(error.field, error.message))


def _too_large(error: PayloadTooLarge) -> ApiError:
    return payload_too_large(error.limit_bytes, error.field)


def _mismatch(error: IdempotencyMismatch) -> ApiError:
    return idempotency_mismatch({"client_msg_id": error.client_msg_id, "index": error.index})


# The nearest class in the exception's ancestry is taken.
_STREAMS_ERRORS: dict[type[Exception], Callable[[Any], ApiError]] = {
    InvalidInput: _invalid_input,
    PayloadTooLarge: _too_large,
    IdempotencyMismatch: _mismatch,
    # The same as for a stranger: whether a project exists is not told.
    ProjectNotFound: lambda _: project_access_denied(),
    ProjectExists: lambda _: project_access_denied(),
    Unavailable: lambda error: store_unavailable(error.retry_after_s),
    Closed: lambda _: store_unavailable(),
}


def to_api_error(exc: Exception) -> ApiError:
    """Return the answer for any exception, `INTERNAL` for one that nobody expected. Logs nothing.

    Streams use it too, for what they tell in-band.
    """
    if isinstance(exc, ApiError):
        return exc
    if isinstance(exc, AuthenticationError):
        return unauthenticated()
    if isinstance(exc, HTTPException):
        return _from_framework(exc)
    # Raised by Litestar's JSON decoder, which wraps msgspec's errors alone; the same classes from
    # anywhere else are bugs of ours.
    if isinstance(exc, UnicodeDecodeError | RecursionError) and _is_from_decoder(exc.__traceback__):
        return invalid_body(exc)
    for ancestor in type(exc).__mro__:
        if make := _STREAMS_ERRORS.get(ancestor):
            return make(exc)
    return internal()


def exception_handlers(metrics: Metrics) -> ExceptionHandlersMap:
    """Return Litestar's mapping for all exceptions; callers that are not known are counted."""

    def handle(request: Request[Any, Any, Any], exc: Exception) -> Response[bytes]:
        error, identity = _noted(exc, request.scope, metrics)
        return Response(
            content=error.body(identity),
            status_code=error.status,
            headers={**error.headers(), "X-Request-Id": identity},
            media_type=JSON,
        )

    # Not by status: Litestar prefers a status to a class, and would pass our own by.
    return {Exception: handle}


async def answer_error(
    exc: Exception,
    scope: Scope,
    send: Send,
    metrics: Metrics,
    headers: Sequence[tuple[bytes, bytes]] = (),
) -> None:
    """Send an exception's answer outside of Litestar, with more headers of the caller."""
    error, identity = _noted(exc, scope, metrics)
    body = error.body(identity)
    own = {**error.headers(), "X-Request-Id": identity, "Content-Type": JSON}
    own["Content-Length"] = str(len(body))
    encoded = [(name.lower().encode(), value.encode()) for name, value in own.items()]
    await send(
        {
            "type": "http.response.start",
            "status": error.status,
            "headers": [*encoded, *headers],
        }
    )
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _noted(exc: Exception, scope: Scope, metrics: Metrics) -> tuple[ApiError, str]:
    error = to_api_error(exc)
    identity = request_id(scope)
    if isinstance(exc, AuthenticationError):
        metrics.auth_failures.labels(exc.reason).inc()
    elif error.status == 500:
        # The path names a project, not a message; the query, which may hold a token, is left out.
        _log.error(
            "request failed",
            exc_info=exc,
            extra={"request_id": identity, "path": scope["path"]},
        )
    return error, identity


def request_id(scope: Scope) -> str:
    """Return the request's id: the client's `X-Request-Id` when it is usable, else a made one.

    The same for every call with one request's scope.
    """
    known = scope["state"].get(_SCOPE_KEY)
    if isinstance(known, str):
        return known
    sent = [value for name, value in scope["headers"] if name == b"x-request-id"]
    if len(sent) == 1 and _REQUEST_ID.fullmatch(sent[0]):
        identity = sent[0].decode()
    else:
        # No secret: it need not come from the system.
        identity = f"{random.getrandbits(128):032x}"
    scope["state"][_SCOPE_KEY] = identity
    return identity


def with_request_id(app: ASGIApp) -> ASGIApp:
    """Wrap an ASGI application: each answer carries `X-Request-Id` and the `SECURITY_HEADERS`.

    What an answer carries already is left as it is.
    """

    # Not a coroutine: its frame would live as long as an open stream.
    def with_id(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        if scope["type"] != ScopeType.HTTP:
            return app(scope, receive, send)
        scope.setdefault("state", {})
        identity = request_id(scope).encode()

        async def send_with_id(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = list(message["headers"])
                own = {name.lower() for name, _ in headers}
                added = ((b"x-request-id", identity), *SECURITY_HEADERS)
                headers += [each for each in added if each[0] not in own]
                message["headers"] = headers
            await send(message)

        return app(scope, receive, send_with_id)

    return with_id


def _from_framework(exc: HTTPException) -> ApiError:
    """Turn Litestar's own exceptions around.

    Their `detail` is not passed on: it repeats the address with its query, token and all.
    """
    status = exc.status_code
    if isinstance(exc, ValidationException):
        return validation_failed(*_field_errors(exc))
    if status == 400:
        return validation_failed(FieldError("body", "is not valid JSON"))
    if status == 405:
        allow = {name.lower(): value for name, value in (exc.headers or {}).items()}.get("allow")
        return method_not_allowed(allow)
    if status == 500 and exc.detail == "client disconnected prematurely":
        # Nobody reads the answer, and it is no failure of ours.
        return ended_too_early()
    if plain := _PLAIN.get(status):
        return plain()
    if 400 <= status < 500:
        return ApiError(status, "VALIDATION_FAILED", "The request is not valid")
    return internal()


_PLAIN: Mapping[int, Callable[[], ApiError]] = {
    401: unauthenticated,
    403: lambda: forbidden("This is not allowed"),
    404: not_found,
    413: payload_too_large,
    415: unsupported_media_type,
    429: lambda: rate_limited(1.0),
    503: store_unavailable,
}


def _field_errors(exc: ValidationException) -> Iterator[FieldError]:
    described: Sequence[Any] = exc.extra if isinstance(exc.extra, list) else ()
    for each in described:
        if isinstance(each, Mapping) and isinstance(each.get("message"), str):
            field = str(each.get("key", "body"))
            yield _field_error("" if field == "data" else field, each["message"])
    if not described and (
        missing := re.match(r"Missing required (\w+) parameter '([^']*)'", exc.detail)
    ):
        yield FieldError(missing[2], "is required")


def _field_error(place: str, text: str) -> FieldError:
    """Name the field itself where msgspec names the object that lacks it or has it too much."""
    named = re.fullmatch(r"Object (?:missing required|contains unknown) field `(.*)`", text, re.S)
    if named:
        field = f"{place}.{named[1]}" if place else named[1]
        return FieldError(field, "is required" if "missing" in text else "is not known")
    if text == "'data'":  # what Litestar says of a body that is not there
        return FieldError("body", "is required")
    # msgspec repeats the value of an enumeration's wrong member.
    text = re.sub(r"\AInvalid enum value .*", "is not one of the allowed values", text, flags=re.S)
    return FieldError(place or "body", text)


def _is_from_decoder(traceback: TracebackType | None) -> bool:
    if traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame.f_globals.get("__name__") == "litestar.serialization.msgspec_hooks"
