"""How many answers to reads one user may have under way in this process. Pure.

An answer counts until its client has taken it: one that is never read holds memory.
"""

from __future__ import annotations


class ReadSlots:
    """Counts reads per user. Nothing is kept of a user without one."""

    def __init__(self, per_user: int) -> None:
        """A limit of 0 is off."""
        self._per_user = per_user
        self._reads: dict[str, int] = {}

    @property
    def tracked(self) -> int:
        """How many users are remembered; 0 when nothing is under way."""
        return len(self._reads)

    def acquire(self, user_id: str) -> bool:
        """Count one more and return True, or count nothing: the limit is reached.

        Every True must be answered by one `release`.
        """
        under_way = self._reads.get(user_id, 0)
        if 0 < self._per_user <= under_way:
            return False
        self._reads[user_id] = under_way + 1
        return True

    def release(self, user_id: str) -> None:
        """Give one read's place back."""
        left = self._reads[user_id] - 1
        if left:
            self._reads[user_id] = left
        else:
            del self._reads[user_id]
