"""What the suite asks of a service: streams to test on, and what can be done to them.

An interface and its data only; `seqstream_target.py` is this project's service,
`other_target.py` any that a file describes. A scenario whose controls a target lacks is "not run".
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from enum import StrEnum
from typing import Protocol

from tests.clients.reading import Reading
from tests.clients.records import Sent


class Control(StrEnum):
    """What a target may be able to do beyond streaming what is posted."""

    RESTART = "restart"  # end the service (SIGTERM) and start it again
    REFUSE = "refuse"  # refuse a stream in band while another is open
    HEARTBEAT = "heartbeat"  # send a heartbeat after some seconds of silence, as asked
    HISTORY = "history"  # name the range that it does not replay, and serve it
    LOOPBACK = "loopback"  # can be put behind an nginx on this machine


class Channel(Protocol):
    """One stream of the service, used by one client in one scenario."""

    host: str
    port: int
    token: str

    def path(self, heartbeat_s: int | None) -> str:
        """Path and query of the stream, with the credential and without a cursor."""

    async def post(self, texts: Sequence[str]) -> list[Sent]:
        """Post messages in order; with RESTART also while the service is stopped."""

    async def stop(self) -> None:
        """RESTART: end the service with SIGTERM and wait for its end."""

    async def start(self) -> None:
        """RESTART: start it again on the same address, and wait until it is ready."""

    async def occupy(self) -> None:
        """REFUSE: open streams until no other is accepted."""

    async def leave(self) -> None:
        """REFUSE: close them, and return when another stream is accepted."""

    def gap(self, data: str) -> tuple[int, int] | None:
        """HISTORY: the first and the last number that the event `gap_event` says are not sent."""

    async def history(self, first: int, last: int) -> list[Sent]:
        """HISTORY: the messages with these numbers."""


class Target(Protocol):
    """A service that runs. The names of its events are None where it has no such event."""

    name: str
    controls: frozenset[Control]
    reading: Reading
    longest_text_bytes: int
    ready_event: str | None  # from this event on every message reaches the stream
    heartbeat_event: str | None
    refused_event: str | None
    gap_event: str | None
    replay_limit: int  # HISTORY: more than this is not replayed

    def channel(self, controls: frozenset[Control]) -> AbstractAsyncContextManager[Channel]:
        """Make a fresh stream that offers these controls."""
