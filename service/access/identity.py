"""A caller whose identity is verified: its user id, its scopes, the projects of its token. Pure.

How a caller proves its identity is in `signatures.py` and `tokens.py`; whether it is a member of
a project, and where `admin` stands in for membership, is in `membership.py`.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

import msgspec

Scope = Literal["read", "write", "worker", "admin"]
SCOPES: Final[frozenset[Scope]] = frozenset(get_args(Scope))


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """A known user, and what the request or token allows it.

    `projects` is None when it is limited to none; `expires_at_s` (unix time) is None when nothing
    expires. Membership still decides whether a project may be entered.
    """

    user_id: str
    scopes: frozenset[Scope]
    projects: frozenset[str] | None
    expires_at_s: float | None
    method: Literal["signature", "token"]

    def has_scope(self, scope: Scope) -> bool:
        """Tell whether the caller may do what needs this scope."""
        return scope in self.scopes

    def is_limited_from(self, project_id: str) -> bool:
        """Tell whether the token's list of projects leaves this one out."""
        return self.projects is not None and project_id not in self.projects


def parse_scopes(text: str) -> frozenset[Scope] | None:
    """Return the scopes of a space-separated list; None when one is unknown or there is none."""
    named = set(text.split(" "))
    return frozenset(scope for scope in SCOPES if scope in named) if named <= SCOPES else None
