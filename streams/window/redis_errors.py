"""Translation of the driver's errors into `WindowUnavailable`. No driver error leaves the room."""

from __future__ import annotations

from redis.exceptions import (
    AskError,
    MaxConnectionsError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from streams.model.errors import WindowBusy, WindowRefused, WindowUnavailable
from streams.window.redis_internals import is_closed_transport


def as_unavailable(error: Exception) -> WindowUnavailable:
    """Return the `WindowUnavailable` that a driver's error means; the error is its cause."""
    if isinstance(error, WindowUnavailable):
        return error
    failure: WindowUnavailable
    # A MovedError is an AskError.
    if isinstance(error, (AskError, TryAgainError)):
        failure = WindowBusy("Redis: the slot is moving, or has moved")
    elif isinstance(error, MaxConnectionsError):
        failure = WindowBusy("Redis: no connection is free")
    elif isinstance(error, ResponseError):
        failure = WindowRefused(f"Redis: {type(error).__name__}")
    else:
        failure = WindowUnavailable(f"Redis: {type(error).__name__}")
    failure.__cause__ = error
    return failure


class _Translated:
    """Context manager that raises `WindowUnavailable` for the driver's errors.

    A class: a generator as a context manager costs as much as packing a command.
    """

    def __enter__(self) -> None:
        pass

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        if error is None:
            return
        if isinstance(error, (RedisError, OSError, TimeoutError)):
            raise as_unavailable(error)
        if isinstance(error, RuntimeError) and is_closed_transport(error):
            raise WindowUnavailable("Redis: the connection is closed") from error


TRANSLATED = _Translated()
