"""The limit on reads (GET, HEAD) that one user has under way in this process. Pure.

A read counts until the client has taken its response, since the response holds memory until then.
"""

from __future__ import annotations


class ReadSlots:
    """Counts reads per user. Users without reads take no memory."""

    def __init__(self, per_user: int) -> None:
        """A limit of 0 is off."""
        self._per_user = per_user
        self._reads: dict[str, int] = {}

    @property
    def tracked(self) -> int:
        """How many users are remembered; 0 when nothing is under way."""
        return len(self._reads)

    def acquire(self, user_id: str) -> bool:
        """Count one more and return True; False when the limit is reached.

        Each True must be followed by exactly one `release`.
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
