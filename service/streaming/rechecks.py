"""Rechecks the membership behind open streams, in case the notice of a removal was lost.

Of an admin's streams, which need no membership, it rechecks whether the project exists.

A removal is announced to all processes that read the project's shard. Memberships that were
confirmed before its notices were sure to arrive here (the first readers of a project, an outage of
Redis), or long ago, are queried again: for all streams in one query, beside the pulse and never
while a stream opens. `access/membership.py` receives the notices.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from service.access.membership import AccessControl
from service.streaming.connection import Connection
from streams.eventlog import EventLog
from streams.model.errors import StreamsError

EVERY_S = 1.0
# docs/protocol.md §3: rechecked at least every 30 s, even if the notice of a removal is lost.
AFTER_S = 20.0
# While no notices arrive: often enough to end streams within 5 s of a removal (§2, G9).
AFTER_WITHOUT_NOTICES_S = 2.0
_PAIRS_AT_ONCE = 1000
_TIMEOUT_S = 2.0


class Rechecks:
    """Queries the membership behind open streams again, in `run`."""

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
        """Recheck the streams that are due, until cancelled."""
        while True:
            await asyncio.sleep(EVERY_S)
            await self.once()

    async def once(self) -> None:
        """Recheck the streams that are due; end those of removed members and of lost projects."""
        now = self._access.clock()
        due: dict[tuple[str, str], list[Connection]] = {}
        of_admins: dict[str, list[Connection]] = {}
        for connection in self._all_open():
            if not self._is_due(connection, now):
                continue
            if connection.as_admin:
                of_admins.setdefault(connection.project_id, []).append(connection)
            else:
                due.setdefault((connection.project_id, connection.user_id), []).append(connection)
        await self._recheck_members(due)
        await self._recheck_projects(of_admins)

    async def _recheck_members(self, due: dict[tuple[str, str], list[Connection]]) -> None:
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

    async def _recheck_projects(self, due: dict[str, list[Connection]]) -> None:
        projects = list(due)
        for start in range(0, len(projects), _PAIRS_AT_ONCE):
            chunk = projects[start : start + _PAIRS_AT_ONCE]
            asked_at = self._access.clock()
            try:
                async with asyncio.timeout(_TIMEOUT_S):
                    existing = await self._log.log.heads(chunk)
            except (StreamsError, TimeoutError):
                return
            for project_id in chunk:
                for connection in due[project_id]:
                    if project_id in existing:
                        connection.member_since = asked_at
                    else:
                        connection.close("access_revoked")

    def _is_due(self, connection: Connection, now: float) -> bool:
        since = connection.member_since
        notices_since = self._access.notices_since(connection.project_id)
        if notices_since > now:
            return since < now - AFTER_WITHOUT_NOTICES_S
        return since < max(notices_since, now - self._after_s)
