"""A build as a value: its row in Postgres. Pure.

What streams receive of a build is in `build_states.py`; statements are in `builds/build_rows.py`.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from streams.model.events import BuildState

MAX_ATTEMPTS = 3
LEASE_S = 30.0
MAX_TEXT = 500
"""Characters of a step or a message."""


class Change(msgspec.Struct, frozen=True):
    """A change of status, kept in the row for streams that have not received it."""

    revision: int
    status: BuildState
    attempt: int
    at_us: int
    message: str | None = None


class Build(msgspec.Struct, frozen=True):
    """A build's row. `result` and `metadata` are JSON; `message_seq` is the message that asked.

    `revision` grows with every change that streams receive.
    """

    id: str
    project_id: str
    version_id: str
    user_id: str
    message_seq: int
    message_id: str
    request: str
    metadata: bytes | None
    status: BuildState
    attempt: int
    progress: float | None
    step: str | None
    message: str | None
    worker_id: str | None
    cancelled: bool
    result: bytes | None
    end_seq: int | None
    revision: int
    changes: tuple[Change, ...]
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None
    ended_at: datetime | None

    @property
    def ended(self) -> bool:
        """Whether the status is final."""
        return self.status in ("completed", "failed")


def last_change(build: Build) -> int:
    """Return the revision of the last change of status; higher ones changed only the progress."""
    return build.changes[-1].revision


def clean(text: str, limit: int = MAX_TEXT) -> str:
    """Return the text without U+0000 and lone surrogates, cut to `limit` characters."""
    return text.replace("\x00", "").encode("utf-8", "replace").decode()[:limit]
