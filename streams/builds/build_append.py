"""Appending one unit of messages inside the transaction of a build's change."""

from __future__ import annotations

from streams.log.database import Session
from streams.log.log import Appended, Log, Unit
from streams.model.errors import StreamsError


async def append_one(log: Log, unit: Unit, session: Session) -> Appended:
    """Append a unit of one message. Raises what the log refuses it for."""
    (outcome,) = await log.append([unit], session)
    if isinstance(outcome, StreamsError):
        # Raised inside the transaction, which is rolled back.
        raise outcome
    return outcome[0]
