"""The record of one fault's run, as `python -m tests.faults` writes it. Data only."""

from __future__ import annotations

import msgspec


class Result(msgspec.Struct, frozen=True):
    """The result of one fault: what was counted, measured and found wrong.

    `lost` to `other`, `builds_wrong` and `answers_wrong` must be 0, `violations` and `failures`
    empty.
    """

    fault: str
    seed: int
    length_s: float
    clients: int
    posts_per_s: float
    acknowledged: int
    in_log: int
    delivered: int
    announced_unsent: int
    reconnects: int
    longest_silence_s: float
    longest_delay_s: float
    allowed_delay_s: float | None
    caught_up_s: float
    lost: int
    repeated: int
    reordered: int
    changed: int
    other: int
    builds_asked: int
    builds_ended: int
    builds_wrong: int
    answers_asked: int
    answer_ends: dict[str, int]  # by type
    answers_wrong: int
    violations: list[str]
    failures: list[str]
    notes: list[str]
    answers: dict[str, int]  # of posts: by status or error
    ends: dict[str, int]  # of streams: by error or by the last event

    @property
    def ok(self) -> bool:
        """Whether every guarantee held."""
        return not self.violations and not self.failures
