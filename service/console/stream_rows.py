"""The open streams of one project as an operator sees them: cursor, lag, backlog, state. Pure.

Reads attributes of connections; nothing here changes one.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Literal, get_args

import msgspec

from service.streaming.broadcast import Broadcast
from service.streaming.connection import Connection

MAX_ROWS = 200

State = Literal["live", "catching_up", "blocked", "ahead", "closing"]
"""`blocked`: the client takes no more bytes; `ahead`: its cursor is one that this process's tail
has not reached."""


class StreamRow(msgspec.Struct, frozen=True, rename="camel"):
    """An open stream. `lag_seqs` is how many messages of the log it was not sent yet."""

    connection_id: str
    user_id: str
    state: State
    cursor: int
    lag_seqs: int
    backlog_bytes: int
    age_seconds: float
    is_admin: bool


class Waiting(msgspec.Struct, frozen=True, rename="camel"):
    """How many streams are in one state, and the largest lag and backlog among them."""

    streams: int
    max_lag_seqs: int
    backlog_bytes: int


def rows_of(
    broadcast: Broadcast | None, connections: Sequence[Connection], *, head: int, now: float
) -> list[StreamRow]:
    """Return a row for each connection; `now` is the loop's time."""
    if broadcast is None:
        return []
    return [_row(broadcast, connection, head, now) for connection in connections]


def most_behind(rows: Sequence[StreamRow]) -> list[StreamRow]:
    """Return at most `MAX_ROWS`: those with the largest lag and backlog."""
    return heapq.nlargest(MAX_ROWS, rows, key=lambda row: (row.lag_seqs, row.backlog_bytes))


def waiting(rows: Sequence[StreamRow]) -> dict[State, Waiting]:
    """Count the streams by state."""
    by_state: dict[State, list[StreamRow]] = {state: [] for state in get_args(State)}
    for row in rows:
        by_state[row.state].append(row)
    return {
        state: Waiting(
            len(members),
            max((row.lag_seqs for row in members), default=0),
            sum(row.backlog_bytes for row in members),
        )
        for state, members in by_state.items()
    }


def state_of(broadcast: Broadcast, connection: Connection) -> State:
    """Return what the connection does now."""
    if connection.is_closing:
        return "closing"
    if connection.wire.blocked:
        return "blocked"
    if broadcast.is_live(connection):
        return "live"
    return "ahead" if broadcast.is_ahead(connection) else "catching_up"


def _row(broadcast: Broadcast, connection: Connection, head: int, now: float) -> StreamRow:
    is_live = broadcast.is_live(connection)
    # The readers of live connections rest: the broadcast stands for all of them.
    cursor = broadcast.written_seq if is_live else connection.reader.seq
    return StreamRow(
        connection_id=connection.connection_id,
        user_id=connection.user_id,
        state=state_of(broadcast, connection),
        cursor=cursor,
        lag_seqs=max(0, head - cursor),
        backlog_bytes=connection.wire.backlog_bytes,
        age_seconds=round(now - connection.opened_at, 1),
        is_admin=connection.as_admin,
    )
