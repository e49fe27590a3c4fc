"""Whether a caller may enter a project: scope, the token's list of projects, membership.

Membership is read from Postgres and remembered for seconds, so that a post costs no look-up of its
own; a removal is announced to all processes and forgets it at once.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from itertools import islice

from service.access.credentials import Caller, Scope
from service.http.api_errors import forbidden, project_access_denied
from streams.eventlog import EventLog
from streams.model.errors import LogUnavailable, Unavailable
from streams.tail.tail import Tail

_log = logging.getLogger(__name__)

ACCESS_REVOKED = "access.revoked"
"""The notice that a user was removed from a project; its data is the user id."""

FRESH_S = 5.0
# Where notices of removals arrive: as the rule for open streams, whose notice may be lost too.
FRESH_WHERE_TOLD_S = 20.0
# From the first reader of a project until its notices arrive for certain.
_TOLD_AFTER_S = 1.0
# While Postgres is away, who was a member within the last minute still is.
_STALE_S = 60.0
_REMEMBERED = 50_000
_PAIRS_AT_ONCE = 1000
_GATHER_S = 0.005
# How long Postgres may take to confirm again who was a member within the last minute.
_PATIENCE_S = 0.5

_Key = tuple[str, str]


class AccessControl:
    """Answers from what was read at most `FRESH_S` ago, else from Postgres.

    Projects that are read here get notices of removals: what is known of them holds longer.
    """

    def __init__(self, log: EventLog, clock: Callable[[], float] = time.monotonic) -> None:
        """Take a clock of seconds."""
        self._log = log
        self.clock = clock
        # Since when the notices of the projects arrive that are read here.
        self._told_since: dict[str, float] = {}
        self._confirmed: OrderedDict[_Key, float] = OrderedDict()
        self._revoked: OrderedDict[_Key, float] = OrderedDict()
        self._waiting: dict[_Key, asyncio.Future[bool]] = {}
        self._asking: asyncio.Task[None] | None = None
        log.tails.on_notice(self._noticed)
        log.tails.watch(self._listen, self._unlisten)
        log.health.on_lanes_return(self._listen_again)

    async def require(self, caller: Caller, project_id: str, scope: Scope) -> None:
        """Let the caller pass, or raise the 403 that it gets.

        Raises:
            ApiError: 403, the same for strangers and for projects that do not exist.
            LogUnavailable: Postgres is away and nothing recent is known.
        """
        if caller.is_limited_from(project_id):
            raise project_access_denied()
        if not await self.is_member(project_id, caller.user_id):
            raise project_access_denied()
        require_scope(caller, scope)

    def admits(self, caller: Caller, project_id: str, scope: Scope) -> bool:
        """Tell whether the caller may pass by what is remembered; if not, `require` decides."""
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
            if self._asking is None:
                self._asking = asyncio.create_task(self._ask(), name="ask membership")
        was_member = self.clock() - self._confirmed.get(key, float("-inf")) <= _STALE_S
        try:
            async with asyncio.timeout(_PATIENCE_S if was_member else None):
                return await asyncio.shield(answer)
        except (LogUnavailable, TimeoutError) as error:
            # Looked up once more: a removal may have been told meanwhile.
            if self.clock() - self._confirmed.get(key, float("-inf")) <= _STALE_S:
                return True
            raise LogUnavailable("the membership could not be confirmed") from error

    def _is_known(self, key: _Key) -> bool:
        at = self._confirmed.get(key)
        if at is None:
            return False
        age_s = self.clock() - at
        return age_s <= FRESH_S or (age_s <= FRESH_WHERE_TOLD_S and at >= self.told_since(key[0]))

    def confirmed_at(self, project_id: str, user_id: str) -> float:
        """Return the clock's time when the user was last known to be a member; -inf: not known."""
        return self._confirmed.get((project_id, user_id), float("-inf"))

    def told_since(self, project_id: str) -> float:
        """Return since when this process is told of the project's removals; inf: it is not."""
        if not self._log.health.delivers:
            return float("inf")
        return self._told_since.get(project_id, float("inf"))

    def was_revoked_since(self, project_id: str, user_id: str, at: float) -> bool:
        """Tell whether a removal was told after what was confirmed at the clock's time `at`."""
        revoked_at = self._revoked.get((project_id, user_id))
        return revoked_at is not None and revoked_at >= at

    async def _ask(self) -> None:
        """Ask for all that wait, one question at a time: what comes meanwhile goes together."""
        try:
            while self._waiting:
                pairs = list(islice(self._waiting, _PAIRS_AT_ONCE))
                await self._ask_for({pair: self._waiting.pop(pair) for pair in pairs})
                if len(pairs) > 1:
                    # Many at once: soon there are as many again.
                    await asyncio.sleep(_GATHER_S)
        finally:
            self._asking = None

    async def _ask_for(self, answers: dict[_Key, asyncio.Future[bool]]) -> None:
        asked_at = self.clock()
        try:
            members = await self._log.projects.which_are_members(list(answers))
            for pair, answer in answers.items():
                if pair in members:
                    self.confirm(*pair, asked_at)
                else:
                    self._confirmed.pop(pair, None)
                answer.set_result(pair in members)
        except Exception as error:  # noqa: BLE001 - whoever asked answers it, or logs a bug
            for answer in answers.values():
                answer.set_exception(error)
                # Looked at here too: who asked may be gone.
                answer.exception()
        finally:
            for answer in answers.values():
                # At the end of the process: nobody waits for ever.
                answer.cancel()

    def confirm(self, project_id: str, user_id: str, at: float) -> None:
        """Remember that the user is a member, as asked for at the clock's time `at`.

        Not when a removal was told since: the answer may be older than that.
        """
        key = (project_id, user_id)
        if self._revoked.get(key, float("-inf")) < at:
            _remember(self._confirmed, key, at)

    def _forget(self, key: _Key) -> None:
        self._confirmed.pop(key, None)
        _remember(self._revoked, key, self.clock())

    async def revoked(self, project_id: str, user_id: str) -> None:
        """Forget a member here, and tell the other processes."""
        self._forget((project_id, user_id))
        try:
            await self._log.tails.lanes.signal(project_id, ACCESS_REVOKED, user_id.encode())
        except Unavailable:
            # Open streams of other processes notice at their next check.
            _log.warning("removal not announced", extra={"project_id": project_id})

    def _listen(self, tail: Tail) -> None:
        self._told_since[tail.project_id] = self.clock() + _TOLD_AFTER_S

    def _unlisten(self, tail: Tail) -> None:
        self._told_since.pop(tail.project_id, None)

    def _listen_again(self) -> None:
        """Notices were lost while Redis was away."""
        since_s = self.clock() + _TOLD_AFTER_S
        self._told_since = dict.fromkeys(self._told_since, since_s)

    def _noticed(self, project_id: str, event: str, data: bytes) -> None:
        if event == ACCESS_REVOKED:
            self._forget((project_id, data.decode()))


def _remember(times: OrderedDict[_Key, float], key: _Key, at: float) -> None:
    times[key] = at
    times.move_to_end(key)
    if len(times) > _REMEMBERED:
        times.popitem(last=False)


def require_scope(caller: Caller, scope: Scope) -> None:
    """Let a caller with this scope pass, or raise 403 FORBIDDEN."""
    if not caller.has_scope(scope):
        raise forbidden(f"This needs the scope '{scope}'")
