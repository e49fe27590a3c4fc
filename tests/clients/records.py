"""What was posted, and what a client's program surfaced. Data only; `verdict.py` judges it."""

from __future__ import annotations

import msgspec


class Sent(msgspec.Struct, frozen=True):
    """A message that the service accepted; `number` is None where the service gives none."""

    text: str
    number: int | None = None


class Surfaced(msgspec.Struct, frozen=True):
    """One line of a program: an event as its client handed it on."""

    event: str | None = None
    id: str | None = None
    data: str | None = None
