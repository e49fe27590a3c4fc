"""Whether Redis and Postgres answer, as last seen. Whoever talks to them reports here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from streams.errors import WindowUnavailable
from streams.observer import Observer
from streams.window import Window

_log = logging.getLogger(__name__)

# Generous: a busy machine is no outage, and messages do not wait for this verdict (heads poll).
_PING_TIMEOUT_S = 1.0


class Health:
    """Two flags and who wants to know when Redis comes back."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._redis_up = True
        self._postgres_up = True
        self._on_redis_return: list[Callable[[], None]] = []

    @property
    def redis_up(self) -> bool:
        """Whether Redis answered last."""
        return self._redis_up

    @property
    def postgres_up(self) -> bool:
        """Whether Postgres answered last."""
        return self._postgres_up

    def on_redis_return(self, callback: Callable[[], None]) -> None:
        """Call `callback` each time Redis answers again after it did not."""
        self._on_redis_return.append(callback)

    def saw_redis(self, up: bool) -> None:
        """Note that Redis answered or did not; a change is logged once."""
        if up == self._redis_up:
            return
        self._redis_up = up
        self._observer.redis(up)
        if up:
            _log.info("redis answers again")
            for callback in self._on_redis_return:
                callback()
        else:
            _log.warning("redis does not answer: streams go on from the log")

    def saw_postgres(self, up: bool) -> None:
        """Note that Postgres answered or did not; a change is logged once."""
        if up == self._postgres_up:
            return
        self._postgres_up = up
        self._observer.postgres(up)
        if up:
            _log.info("postgres answers again")
        else:
            _log.warning("postgres does not answer: nothing can be appended")


class RedisProbe:
    """Pings Redis, so that one that hangs is noticed though nobody gets an error from it."""

    def __init__(self, window: Window, health: Health, interval_s: float) -> None:
        self._window = window
        self._health = health
        self._interval_s = interval_s

    async def run(self) -> None:
        """Ping for ever."""
        while True:
            try:
                async with asyncio.timeout(_PING_TIMEOUT_S):
                    await self._window.ping()
            except (WindowUnavailable, TimeoutError):
                self._health.saw_redis(False)
            else:
                self._health.saw_redis(True)
            await asyncio.sleep(self._interval_s if self._health.redis_up else 0.1)
