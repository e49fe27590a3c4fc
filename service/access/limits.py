"""Limits on how many streams or answers are open at once in this process. Pure.

Rate limits are token buckets (`streams/model/token_bucket.py`); nothing here knows about HTTP.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Literal

SlotRefusal = Literal["user", "project", "process"]
"""Whose limit is reached: the user's, the project's, or the process's own."""


class Slots:
    """Counts what is under way in this process: per user, per project, in all.

    A limit of 0 is off. Users and projects with nothing under way take no memory.
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
        """Take one place and return None, or take none and return whose limit is reached.

        Each None must be followed by exactly one `release`.
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
    """Counts open streams; the limit of a user holds for each project separately."""

    def _user(self, project_id: str, user_id: str) -> Hashable:
        return project_id, user_id
