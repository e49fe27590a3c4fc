"""What a fault is, and what it is given when it happens.

How one is run from its beginning to the verdict is in `run.py`; faults are in `*_faults.py`.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.faults.load import Load, Size
from tests.faults.world import Plan, World
from tests.support.build_checker import StatusGuarantee

_DELIVERY_TIMEOUT_S = 10.0


@dataclass
class Scene:
    """What a fault is given: the world, its load, a length, and seeded random numbers."""

    world: World
    load: Load
    length_s: float
    random: random.Random
    notes: list[str] = field(default_factory=list)

    async def last(self, share: float = 1.0) -> None:
        """Wait under load for the fault's length, or a share of it."""
        await asyncio.sleep(self.length_s * share)

    def answers(self) -> Counter[str]:
        """Count the answers to all attempts of posts so far, by status or error."""
        return sum((writer.answers for writer in self.load.writers), Counter())

    async def all_delivered(self) -> None:
        """Wait until the steady clients have received every message acknowledged so far.

        For use during a fault in which docs/protocol.md §2 promises delivery. The timeout is
        generous; delays are measured elsewhere.
        """
        highest = max(
            (ack.seq for writer in self.load.writers for ack in writer.acknowledgements), default=0
        )
        for client in self.load.steady:
            await client.wait_seq(highest, timeout_s=_DELIVERY_TIMEOUT_S)


@dataclass(frozen=True)
class Fault:
    """A named fault. `length_s` is its full length, `short_s` its length in `make test`.

    `silence_s` is the longest delay that docs/protocol.md allows, during the fault, between an
    acknowledgement and the message's arrival; None when it sets no limit.
    `statuses` says which clients must receive every build's statuses. With `keeps_pieces` nothing
    delays or loses the pieces of answers, so that the last one precedes the message.
    `unavailable` returns why the fault cannot run on this machine, or None.
    """

    name: str
    inject: Callable[[Scene], Awaitable[None]]
    plan: Plan = field(default_factory=Plan)
    length_s: float = 5.0
    short_s: float = 1.5
    silence_s: float | None = None
    size: Size | None = None
    statuses: StatusGuarantee = StatusGuarantee.OPEN
    keeps_pieces: bool = False
    unavailable: Callable[[], str | None] = lambda: None
