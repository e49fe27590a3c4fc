"""Open streams whose callers may have been removed without this process being told.

A removal is announced to all processes that read the project's shard. What was confirmed before
its notices arrived here for certain (the first readers of a project, an outage of Redis), or long
ago, is asked again: for all streams in one question, beside the pulse and never on the way of an
opening. Notices themselves are `access.py`'s.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from service.access.membership import AccessControl
from service.streaming.connection import Connection
from streams.eventlog import EventLog
from streams.model.errors import StreamsError

EVERY_S = 1.0
# docs/protocol.md §3: at least every 30 s, even if the notice of a removal is lost.
AFTER_S = 20.0
# While no notices arrive at all, so often that a removal ends streams within its 5 s (§2, G9).
AFTER_UNTOLD_S = 2.0
_PAIRS_AT_ONCE = 1000
_TIMEOUT_S = 2.0


class Rechecks:
    """Asks again for the membership behind open streams. `run` is its whole life."""

    def __init__(
        self,
        log: EventLog,
        access: AccessControl,
        all_open: Callable[[], Iterable[Connection]],
        *,
        after_s: float = AFTER_S,
    ) -> None:
        self._log = log
        self._access = access
        self._all_open = all_open
        self._after_s = after_s

    async def run(self) -> None:
        """Look for streams to ask for, for ever."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.once()

    async def once(self) -> None:
        """Ask for those that are due; end the streams of who is a member no longer."""
        now = self._access.clock()
        due: dict[tuple[str, str], list[Connection]] = {}
        for connection in self._all_open():
            if self._is_due(connection, now):
                due.setdefault((connection.project_id, connection.user_id), []).append(connection)
        pairs = list(due)
        for start in range(0, len(pairs), _PAIRS_AT_ONCE):
            chunk = pairs[start : start + _PAIRS_AT_ONCE]
            asked_at = self._access.clock()
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    members = await self._log.projects.which_are_members(chunk)
            except (StreamsError, TimeoutError):
                # Postgres is away: the streams stay open, and are due again a second later.
                return
            for pair in chunk:
                if pair in members:
                    self._access.confirm(*pair, asked_at)
                    for connection in due[pair]:
                        connection.member_since = asked_at
                else:
                    for connection in due[pair]:
                        connection.close("access_revoked")

    def _is_due(self, connection: Connection, now: float) -> bool:
        since = connection.member_since
        notices_since = self._access.notices_since(connection.project_id)
        if notices_since > now:
            return since < now - AFTER_UNTOLD_S
        return since < max(notices_since, now - self._after_s)
