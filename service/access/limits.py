"""Limits that one process keeps by counting: a token bucket, and what is under way. Pure.

No I/O and no clock of its own. The limit on posts that holds across processes is kept in Redis,
elsewhere; nothing here knows about HTTP.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Literal

SlotRefusal = Literal["user", "project", "process"]
"""Whose limit is reached: the user's, the project's, or the process's own."""


class TokenBucket:
    """Lets `burst` things through at once, and `rate_per_s` a second for ever.

    A rate of 0 turns the limit off.
    """

    __slots__ = ("_burst", "_clock", "_filled_at_s", "_rate_per_s", "_tokens")

    def __init__(self, rate_per_s: float, burst: float, clock: Callable[[], float]) -> None:
        """Begin full; `clock` gives monotonic seconds."""
        if rate_per_s < 0 or (rate_per_s > 0 and burst < 1):
            raise ValueError("a bucket needs a rate of at least 0 and room for one token")
        self._rate_per_s = rate_per_s
        self._burst = float(burst)
        self._clock = clock
        self._tokens = self._burst
        self._filled_at_s = clock()

    def take(self) -> float:
        """Take one token. Return 0.0 when there was one, else the seconds until there is."""
        if self._rate_per_s == 0:
            return 0.0
        self._fill()
        if self._tokens >= 1:
            self._tokens -= 1
            return 0.0
        return (1 - self._tokens) / self._rate_per_s

    def give_back(self) -> None:
        """Give a token back that was taken for nothing; never above the burst."""
        if self._rate_per_s > 0:
            self._tokens = min(self._burst, self._tokens + 1)

    def is_full(self) -> bool:
        """Tell whether it is as good as new: whoever keeps many may forget this one."""
        self._fill()
        return self._tokens >= self._burst

    def _fill(self) -> None:
        now_s = self._clock()
        # A clock that steps back must not take tokens away, nor give the same time twice.
        if now_s > self._filled_at_s:
            gained = (now_s - self._filled_at_s) * self._rate_per_s
            self._tokens = min(self._burst, self._tokens + gained)
            self._filled_at_s = now_s


class Slots:
    """Counts what is under way in this process: per user, per project, in all.

    A limit of 0 is off. Nothing is kept of users and projects that have nothing under way.
    """

    def __init__(self, *, per_user: int, per_project: int, in_all: int) -> None:
        self._per_user = per_user
        self._per_project = per_project
        self._in_all = in_all
        self._users: dict[Hashable, int] = {}
        self._projects: dict[str, int] = {}
        self._open = 0

    @property
    def open(self) -> int:
        """How many places are taken."""
        return self._open

    @property
    def tracked(self) -> int:
        """How many users and projects are remembered; 0 when nothing is under way."""
        return len(self._users) + len(self._projects)

    def acquire(self, project_id: str, user_id: str) -> SlotRefusal | None:
        """Count one more and return None, or count nothing and say whose limit it is.

        Every None must be answered by one `release`, whatever comes after it.
        """
        user = self._user(project_id, user_id)
        of_user = self._users.get(user, 0)
        of_project = self._projects.get(project_id, 0)
        if 0 < self._per_user <= of_user:
            return "user"
        if 0 < self._per_project <= of_project:
            return "project"
        if 0 < self._in_all <= self._open:
            return "process"
        self._users[user] = of_user + 1
        self._projects[project_id] = of_project + 1
        self._open += 1
        return None

    def release(self, project_id: str, user_id: str) -> None:
        """Give one place back.

        Raises:
            ValueError: the user holds none in this project; nothing was changed.
        """
        user = self._user(project_id, user_id)
        if user not in self._users:
            raise ValueError("released a place that was not taken")
        self._users[user] -= 1
        if not self._users[user]:
            del self._users[user]
        self._projects[project_id] -= 1
        if not self._projects[project_id]:
            del self._projects[project_id]
        self._open -= 1

    def _user(self, project_id: str, user_id: str) -> Hashable:
        return user_id


class StreamSlots(Slots):
    """Counts open streams: those of a user in each project by themselves."""

    def _user(self, project_id: str, user_id: str) -> Hashable:
        return project_id, user_id
