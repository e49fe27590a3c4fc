"""Maps exceptions to errors of the API: the library's, the framework's and the decoder's.

It checks no input, sends nothing and logs nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import msgspec
from litestar.exceptions import HTTPException, ValidationException

from service.http.api_errors import (
    ApiError,
    FieldError,
    answer_ended,
    answer_in_progress,
    ended_too_early,
    forbidden,
    idempotency_mismatch,
    index_gap,
    internal,
    method_not_allowed,
    not_found,
    payload_too_large,
    project_access_denied,
    rate_limited,
    store_unavailable,
    unauthenticated,
    unsupported_media_type,
    validation_failed,
)
from streams.answers.answer_errors import (
    AnswerEnded,
    AnswerHeld,
    AnswerInProgress,
    AnswerNotFound,
    IndexGap,
    TooManyAnswers,
)
from streams.model.errors import (
    Closed,
    IdempotencyMismatch,
    InvalidInput,
    PayloadTooLarge,
    ProjectExists,
    ProjectNotFound,
    Unavailable,
)


def invalid_body(error: msgspec.DecodeError | UnicodeDecodeError | RecursionError) -> ApiError:
    """Return 400 for a body that msgspec could not decode; it names the field if msgspec does."""
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


# Retry-After where too many answers are under way: about the length of one.
_ANSWERS_RETRY_S = 5.0

# The nearest class in the exception's ancestry decides.
_STREAMS_ERRORS: dict[type[Exception], Callable[[Any], ApiError]] = {
    InvalidInput: _invalid_input,
    PayloadTooLarge: _too_large,
    IdempotencyMismatch: _mismatch,
    # The same as for a caller who is no member: whether a project exists is not disclosed.
    ProjectNotFound: lambda _: project_access_denied(),
    ProjectExists: lambda _: project_access_denied(),
    AnswerNotFound: lambda error: not_found(f"There is {error} in this project"),
    AnswerEnded: lambda _: answer_ended(),
    AnswerInProgress: lambda _: answer_in_progress(),
    AnswerHeld: lambda _: forbidden("The answer is written by another"),
    IndexGap: lambda error: index_gap(error.expected),
    TooManyAnswers: lambda _: rate_limited(_ANSWERS_RETRY_S, "Too many answers are under way"),
    Unavailable: lambda error: store_unavailable(error.retry_after_s),
    Closed: lambda _: store_unavailable(),
}


def to_api_error(exc: Exception) -> ApiError:
    """Return the API's error for any exception; `INTERNAL` for an unexpected one. Logs nothing.

    Streams use it too, for the errors that they send as events.
    """
    if isinstance(exc, ApiError):
        return exc
    if isinstance(exc, HTTPException):
        return _from_framework(exc)
    # Litestar's JSON decoder wraps only msgspec's errors and lets these pass; raised anywhere
    # else they are bugs of ours.
    if isinstance(exc, UnicodeDecodeError | RecursionError) and _is_from_decoder(exc.__traceback__):
        return invalid_body(exc)
    for ancestor in type(exc).__mro__:
        if make := _STREAMS_ERRORS.get(ancestor):
            return make(exc)
    return internal()


def _from_framework(exc: HTTPException) -> ApiError:
    """Return the API's error for one of Litestar's.

    Its `detail` is not passed on: it repeats the URL with its query, which may hold a token.
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
        # The client is gone, which is not a failure of the service.
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
    """Name the field itself where msgspec names the object that lacks it or does not know it."""
    named = re.fullmatch(r"Object (?:missing required|contains unknown) field `(.*)`", text, re.S)
    if named:
        field = f"{place}.{named[1]}" if place else named[1]
        return FieldError(field, "is required" if "missing" in text else "is not known")
    if text == "'data'":  # Litestar's text for a missing body
        return FieldError("body", "is required")
    # msgspec repeats the sent value in this text.
    text = re.sub(r"\AInvalid enum value .*", "is not one of the allowed values", text, flags=re.S)
    return FieldError(place or "body", text)


def _is_from_decoder(traceback: TracebackType | None) -> bool:
    if traceback is None:
        return False
    while traceback.tb_next is not None:
        traceback = traceback.tb_next
    return traceback.tb_frame.f_globals.get("__name__") == "litestar.serialization.msgspec_hooks"
