"""Whether a caller may enter a project: scope, the token's list of projects, membership.

Membership is read from Postgres and cached for seconds, so that a post needs no query of its own.
A removal is announced to all processes, and drops the cached membership at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from itertools import islice

from service.access.identity import Caller, Scope
from service.http.api_errors import forbidden, not_found, project_access_denied
from streams.eventlog import EventLog
from streams.model.errors import LogUnavailable, Unavailable
from streams.model.lru_map import LruMap
from streams.tail.tail import Tail

_log = logging.getLogger(__name__)

ACCESS_REVOKED = "access.revoked"
"""The notice that a user was removed from a project; its data is the user id."""

FRESH_S = 5.0
# Where notices of removals arrive: the same bound as for open streams (`rechecks.py`), since a
# notice may be lost.
FRESH_WITH_NOTICES_S = 20.0
# After the first reader of a project, how long until its notices are sure to arrive.
_NOTICES_ARRIVE_AFTER_S = 1.0
# While Postgres is away, a user confirmed within the last minute counts as a member.
_STALE_S = 60.0
_REMEMBERED = 50_000
_PAIRS_AT_ONCE = 1000
_GATHER_S = 0.005
# How long Postgres may take to confirm a user again who was confirmed within the last minute.
_PATIENCE_S = 0.5

_Key = tuple[str, str]


class AccessControl:
    """Checks access with memberships that were read at most `FRESH_S` ago, else with Postgres.

    Projects that have readers in this process get notices of removals, so their memberships are
    used longer (`FRESH_WITH_NOTICES_S`).
    """

    def __init__(self, log: EventLog, clock: Callable[[], float] = time.monotonic) -> None:
        """Take a clock of seconds."""
        self._log = log
        self.clock = clock
        # Per project with readers in this process: the time from which its notices arrive.
        self._notices_since: dict[str, float] = {}
        self._confirmed = LruMap[_Key, float](_REMEMBERED)
        self._revoked = LruMap[_Key, float](_REMEMBERED)
        self._waiting: dict[_Key, asyncio.Future[bool]] = {}
        self._lookup_task: asyncio.Task[None] | None = None
        log.tails.on_notice(self._noticed)
        log.tails.watch(self._listen, self._unlisten)
        log.health.on_lanes_return(self._listen_again)

    async def require(self, caller: Caller, project_id: str, scope: Scope) -> None:
        """Return if the caller may enter the project with this scope.

        `admin` stands in for the membership that `read` needs, and for nothing else.

        Raises:
            ApiError: 403, the same for strangers and for projects that do not exist; 404 for an
                admin who would read a project that does not exist.
            LogUnavailable: Postgres is away and no recent membership is cached.
        """
        if caller.is_limited_from(project_id):
            raise project_access_denied()
        if not await self.is_member(project_id, caller.user_id):
            if scope != "read" or not caller.has_scope("admin"):
                raise project_access_denied()
            if not await self._log.log.heads([project_id]):
                raise not_found("No such project")
        require_scope(caller, scope)

    def admits(self, caller: Caller, project_id: str, scope: Scope) -> bool:
        """Tell whether the cache alone admits the caller; if not, `require` decides."""
        return (
            self._is_known((project_id, caller.user_id))
            and not caller.is_limited_from(project_id)
            and caller.has_scope(scope)
        )

    async def is_member(self, project_id: str, user_id: str) -> bool:
        """Tell whether the user is the owner or a collaborator."""
        key = (project_id, user_id)
        if self._is_known(key):
            return True
        answer = self._waiting.get(key)
        if answer is None:
            answer = self._waiting[key] = asyncio.get_running_loop().create_future()
            if self._lookup_task is None:
                self._lookup_task = asyncio.create_task(
                    self._look_up_waiting(), name="look up memberships"
                )
        was_member = self.clock() - self.confirmed_at(*key) <= _STALE_S
        try:
            async with asyncio.timeout(_PATIENCE_S if was_member else None):
                return await asyncio.shield(answer)
        except (LogUnavailable, TimeoutError) as error:
            # Looked up again: a removal may have been announced meanwhile.
            if self.clock() - self.confirmed_at(*key) <= _STALE_S:
                return True
            raise LogUnavailable("the membership could not be confirmed") from error

    def _is_known(self, key: _Key) -> bool:
        at = self._confirmed.peek(key)
        if at is None:
            return False
        age_s = self.clock() - at
        return age_s <= FRESH_S or (
            age_s <= FRESH_WITH_NOTICES_S and at >= self.notices_since(key[0])
        )

    def confirmed_at(self, project_id: str, user_id: str) -> float:
        """Return when the membership was last confirmed, in the clock's time; -inf: not cached."""
        at = self._confirmed.peek((project_id, user_id))
        return float("-inf") if at is None else at

    def notices_since(self, project_id: str) -> float:
        """Return since when notices of the project's removals arrive here; inf: they do not."""
        if not self._log.health.delivers:
            return float("inf")
        return self._notices_since.get(project_id, float("inf"))

    def was_revoked_since(self, project_id: str, user_id: str, at: float) -> bool:
        """Tell whether a removal was announced at or after the clock's time `at`."""
        revoked_at = self._revoked.peek((project_id, user_id))
        return revoked_at is not None and revoked_at >= at

    async def _look_up_waiting(self) -> None:
        """Look up all waiting pairs, one query at a time; later ones share the next query."""
        try:
            while self._waiting:
                pairs = list(islice(self._waiting, _PAIRS_AT_ONCE))
                await self._look_up({pair: self._waiting.pop(pair) for pair in pairs})
                if len(pairs) > 1:
                    # Under load, let more pairs gather for the next query.
                    await asyncio.sleep(_GATHER_S)
        finally:
            self._lookup_task = None

    async def _look_up(self, answers: dict[_Key, asyncio.Future[bool]]) -> None:
        asked_at = self.clock()
        try:
            members = await self._log.projects.which_are_members(list(answers))
            for pair, answer in answers.items():
                if pair in members:
                    self.confirm(*pair, asked_at)
                else:
                    self._confirmed.pop(pair)
                answer.set_result(pair in members)
        except Exception as error:  # noqa: BLE001 - raised in every waiting request
            for answer in answers.values():
                answer.set_exception(error)
                # Marks it as retrieved: the request may have been cancelled.
                answer.exception()
        finally:
            for answer in answers.values():
                # When this task is cancelled at shutdown: no request may wait without an end.
                answer.cancel()

    def confirm(self, project_id: str, user_id: str, at: float) -> None:
        """Cache a membership that was queried at the clock's time `at`.

        Ignored when a removal was announced since: the query may have run before the removal.
        """
        key = (project_id, user_id)
        if not self.was_revoked_since(project_id, user_id, at):
            self._confirmed.put(key, at)

    def _forget(self, key: _Key) -> None:
        self._confirmed.pop(key)
        self._revoked.put(key, self.clock())

    async def revoked(self, project_id: str, user_id: str) -> None:
        """Drop the cached membership here and announce the removal to the other processes."""
        self._forget((project_id, user_id))
        try:
            await self._log.tails.lanes.signal(project_id, ACCESS_REVOKED, user_id.encode())
        except Unavailable:
            # Open streams of other processes end at their next recheck.
            _log.warning("removal not announced", extra={"project_id": project_id})

    def _listen(self, tail: Tail) -> None:
        self._notices_since[tail.project_id] = self.clock() + _NOTICES_ARRIVE_AFTER_S

    def _unlisten(self, tail: Tail) -> None:
        self._notices_since.pop(tail.project_id, None)

    def _listen_again(self) -> None:
        """Count from now again: notices were lost while Redis was away."""
        since_s = self.clock() + _NOTICES_ARRIVE_AFTER_S
        self._notices_since = dict.fromkeys(self._notices_since, since_s)

    def _noticed(self, project_id: str, event: str, data: bytes) -> None:
        if event == ACCESS_REVOKED:
            self._forget((project_id, data.decode()))


def require_admin(caller: Caller, project_id: str | None = None) -> None:
    """Return if the caller may use an operator's endpoint, or raise 403; no server is queried.

    With a project, a token that is limited to others is refused as a stranger is.
    """
    require_scope(caller, "admin")
    if project_id is not None and caller.is_limited_from(project_id):
        raise project_access_denied()


def require_scope(caller: Caller, scope: Scope) -> None:
    """Return if the caller has the scope, or raise 403 FORBIDDEN."""
    if not caller.has_scope(scope):
        raise forbidden(f"This needs the scope '{scope}'")
