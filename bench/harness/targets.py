"""The targets, and whether a measured figure reaches one. Pure."""

from __future__ import annotations

from typing import Literal

import msgspec

Verdict = Literal["reached", "missed", "not measured"]


class Target(msgspec.Struct, frozen=True):
    """A bound on one figure: exactly one of `at_most` and `at_least`."""

    workload: str
    what: str
    at_most: float | None = None
    at_least: float | None = None
    unit: str = ""

    def __post_init__(self) -> None:
        if (self.at_most is None) == (self.at_least is None):
            raise ValueError("give either at_most or at_least")

    @property
    def bound(self) -> str:
        """The bound as text."""
        sign, limit = ("≤", self.at_most) if self.at_least is None else ("≥", self.at_least)
        return f"{sign} {limit:g}{self.unit}"


class Outcome(msgspec.Struct, frozen=True):
    """A target and its measured value, which is None when it could not be measured."""

    target: Target
    measured: float | None
    verdict: Verdict
    note: str = ""


def judge(target: Target, measured: float | None, note: str = "") -> Outcome:
    """Compare a figure with its target."""
    if measured is None:
        return Outcome(target, None, "not measured", note)
    if target.at_most is not None:
        reached = measured <= target.at_most
    else:
        reached = target.at_least is not None and measured >= target.at_least
    return Outcome(target, measured, "reached" if reached else "missed", note)
