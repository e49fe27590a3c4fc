"""What a cell of the table says, from what was declared and what happened. Pure."""

from __future__ import annotations

from enum import StrEnum

import msgspec


class State(StrEnum):
    """What a cell can be."""

    OK = "ok"  # the client passes by itself
    RECIPE = "recipe"  # the client alone does not; its recipe does
    CLIENT = "client"  # the client cannot, as the catalogue says
    FAILED = "FAILED"  # it does not pass, and nothing said so
    STALE = "STALE"  # the catalogue says that it cannot, and it passes
    NOT_RUN = "not run"  # the target or the machine lacks what it takes


class Outcome(msgspec.Struct, frozen=True):
    """One run of one program. `details` says what was wrong, and what the client had sent."""

    ok: bool
    took_s: float
    details: tuple[str, ...] = ()


class Cell(msgspec.Struct, frozen=True):
    """One client in one scenario. `limit` is what the catalogue declares of it."""

    client: str
    scenario: str
    state: State
    took_s: float = 0.0
    limit: str | None = None
    details: tuple[str, ...] = ()

    @property
    def fails_the_run(self) -> bool:
        """Whether it is a fault of the service, of the program, or of the catalogue."""
        return self.state in (State.FAILED, State.STALE)


def state_of(limit: str | None, bare: Outcome, recipe: Outcome | None, known: bool) -> State:
    """Judge a cell. `recipe` is None without one; `known`: it too is declared not to pass."""
    if limit is None:
        return State.OK if bare.ok else State.FAILED
    if bare.ok:
        return State.STALE
    if recipe is None:
        return State.CLIENT
    if recipe.ok:
        return State.STALE if known else State.RECIPE
    return State.CLIENT if known else State.FAILED
