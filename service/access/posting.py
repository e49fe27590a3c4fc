"""The checks of every post, on any route: membership, the rate limit, one deadline.

What the post then does is in its route. A post that ends with 503 does not count for the limit.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from service.access.identity import Caller, Scope
from service.access.membership import AccessControl
from service.access.post_limit import PostLimit, Token
from streams.model.errors import Closed, LogUnavailable, Unavailable


class Posting:
    """Admits posts, each with a deadline `timeout_s` after its request arrived."""

    def __init__(self, access: AccessControl, limit: PostLimit, *, timeout_s: float) -> None:
        self._access = access
        self._limit = limit
        self._timeout_s = timeout_s

    def is_free(self, caller: Caller, project_id: str) -> bool:
        """Tell whether a post needs neither a query nor the rate limit."""
        return self._limit.is_off and self._access.admits(caller, project_id, "write")

    def admitted(self, caller: Caller, project_id: str, scope: Scope = "write") -> Admission:
        """Return an `async with` to run the post in; it gives the deadline in the loop's time.

        Raises on entry: the 403, 429 or 503 of a post that is not admitted.
        """
        return Admission(self._access, self._limit, caller, project_id, scope, self.deadline_s())

    def deadline_s(self) -> float:
        """Return the deadline of a request that arrives now, in the loop's time."""
        return asyncio.get_running_loop().time() + self._timeout_s


class Admission:
    """One admitted post: its token of the rate limit, and its deadline in the loop's time."""

    __slots__ = ("_access", "_caller", "_deadline_s", "_limit", "_project_id", "_scope", "_token")

    def __init__(
        self,
        access: AccessControl,
        limit: PostLimit,
        caller: Caller,
        project_id: str,
        scope: Scope,
        deadline_s: float,
    ) -> None:
        self._access = access
        self._limit = limit
        self._caller = caller
        self._project_id = project_id
        self._scope: Scope = scope
        self._deadline_s = deadline_s
        self._token: Token | None = None

    async def __aenter__(self) -> float:
        if not self._access.admits(self._caller, self._project_id, self._scope):
            async with until(self._deadline_s):
                await self._access.require(self._caller, self._project_id, self._scope)
        self._token = await self._limit.take(self._project_id, self._caller.user_id)
        return self._deadline_s

    async def __aexit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._token is not None and isinstance(error, Unavailable | Closed):
            await self._limit.give_back(self._token)


@contextlib.asynccontextmanager
async def until(deadline_s: float) -> AsyncIterator[None]:
    """Raise `LogUnavailable` at the deadline: whether the block took effect is then unknown."""
    try:
        async with asyncio.timeout_at(deadline_s):
            yield
    except TimeoutError:
        raise LogUnavailable("no answer from Postgres in time") from None
