"""What may be tuned of an event log. The library reads no environment."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from streams.answers.answer_values import OutsideBounds
from streams.builds.build_values import BuildBounds


class EventLogConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes, times and bounds; every field has a default."""

    database_pool_size: int = 8
    committers: int = 2
    heads_poll_s: float = 0.5
    """A message whose publishing failed is delivered about this long after its commit."""
    redis_timeout_s: float = 1.0
    database_timeout_s: float = 10.0
    append_timeout_s: float = 5.0
    """After this time the caller of an append gets `Unavailable`; the outcome is unknown."""
    tail_memory_bytes: int = 256 * 1024 * 1024
    tail_linger_s: float = 60.0
    """A tail without readers is kept for this long."""
    presence_alive_s: float = 15.0
    """The users of a process that died go offline after this long and a third of it."""
    presence_grace_s: float = 10.0
    """A user without a stream for this long is offline."""
    answer_lease_s: float = 10.0
    """An answer whose process died is ended about this long after that, by another process."""
    outside_bounds: OutsideBounds = OutsideBounds()
    build_bounds: BuildBounds = BuildBounds()
    before_publish: Callable[[int], None] | None = None
    """A fault point: called with the number of commits, between a commit and its publishing."""
