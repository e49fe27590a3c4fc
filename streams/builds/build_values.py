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
    """How many unfinished builds there may be; 0 is no bound."""

    per_project: int = 1000
    per_user: int = 1000
    """Over all projects."""


class Asked(msgspec.Struct, frozen=True):
    """A user's message and the build it asks for."""

    appended: Appended
    build: Build


class Finished(msgspec.Struct, frozen=True):
    """A build that has ended, and its message; none when an earlier try had appended it."""

    build: Build
    message: Message | None


class Counts(msgspec.Struct, frozen=True):
    """How many builds there are, by status; of the ended ones those of the last day."""

    by_status: dict[str, int]
    oldest_queued_s: float
