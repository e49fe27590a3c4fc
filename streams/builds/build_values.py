"""Values around builds: bounds, and what the statements return. The row is `model/build.py`."""

from __future__ import annotations

from typing import Literal

import msgspec

from streams.log.log import Appended
from streams.model.build import Build
from streams.model.events import Message

MAX_RESULT_BYTES = 32 * 1024

Ending = Literal["completed", "failed"]


class BuildBounds(msgspec.Struct, frozen=True):
    """How many unfinished builds there may be; 0 means no bound."""

    per_project: int = 1000
    per_user: int = 1000
    """Bound on the builds of one user in all projects."""


class Asked(msgspec.Struct, frozen=True):
    """A user's message and the build that it requests."""

    appended: Appended
    build: Build


class Finished(msgspec.Struct, frozen=True):
    """A build, and the message that this call appended; None when an earlier call appended it, or
    the build has not ended yet.
    """

    build: Build
    message: Message | None


class Counts(msgspec.Struct, frozen=True):
    """Number of builds by status; ended builds count for a day."""

    by_status: dict[str, int]
    oldest_queued_s: float
