"""What this project relies on inside asyncpg, beyond what its documentation promises.

Each use says which behaviour it needs. The names are checked on import, so an asyncpg that lacks
one fails at start and not during an append. Documented API is called in `database.py`.
"""

from __future__ import annotations

import contextlib
from typing import Any

import asyncpg

# How long the release of a failed connection waits for the server to stop its statement.
_CANCEL_S = 0.25


def require(owner: Any, attribute: str) -> None:
    """Check that asyncpg has an attribute. Raises `ImportError` when it does not."""
    if not hasattr(owner, attribute):
        name = getattr(owner, "__name__", type(owner).__name__)
        raise ImportError(
            f"asyncpg {asyncpg.__version__} has no {name}.{attribute}, which this version of"
            " seqstream needs"
        )


require(asyncpg, "InternalClientError")
require(asyncpg.Connection, "get_reset_query")
require(asyncpg.Pool, "release")
require(asyncpg.pool, "PoolConnectionProxy")
require(asyncpg.pool.PoolConnectionProxy, "is_closed")
require(asyncpg.pool.PoolConnectionProxy, "terminate")

CLIENT_ERRORS: tuple[type[Exception], ...] = (
    asyncpg.InterfaceError,
    # Undocumented. Raised when the state of a connection or of the pool is not the expected one.
    asyncpg.InternalClientError,
)


class Connection(asyncpg.Connection):  # type: ignore[misc]
    """A connection that costs no round trip when it is released.

    Nothing here changes a session's state. asyncpg runs no reset when the query is empty.
    """

    def get_reset_query(self) -> str:
        return ""


def is_open(connection: Any) -> bool:
    """Tell whether an acquired connection is open.

    When a connection ends while it is acquired, the pool takes it back, and from then on every
    method of its proxy raises `InterfaceError`.
    """
    try:
        return not connection.is_closed()
    except asyncpg.InterfaceError:
        return False


async def release_failed(pool: Any, connection: Any) -> None:
    """Release a connection whose statement failed or was cancelled.

    Before asyncpg releases a connection it waits until the server has stopped the statement, by
    default for as long as the statement may take. At the timeout the pool closes the connection.
    """
    with contextlib.suppress(TimeoutError):
        await pool.release(connection, timeout=_CANCEL_S)
