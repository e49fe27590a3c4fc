"""The interface of every measured system: start, stop, how to post, how to read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from bench.harness.http11 import PostTemplate
from bench.harness.messages import StreamGroup


class System(ABC):
    """A system under test. `folder` is for its data and logs.

    `strict`: its SSE ids rise by one, so exactly-once and order can be checked by them.
    `rate_share`: the share of a workload's rate that it is measured at; 1 unless the system is
    known to collapse at the full rate.
    """

    name: ClassVar[str]
    strict: ClassVar[bool] = False
    rate_share: ClassVar[float] = 1.0

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o755)

    @classmethod
    def missing(cls) -> str | None:
        """Return why this system cannot run here, or None when it can."""
        return None

    @abstractmethod
    async def start(self) -> None:
        """Start all processes and wait until they are ready."""

    @abstractmethod
    async def stop(self) -> None:
        """Stop all processes."""

    @property
    @abstractmethod
    def port(self) -> int:
        """The loopback port of the HTTP server."""

    @property
    @abstractmethod
    def pids(self) -> dict[str, int]:
        """The ids of the root processes by role: `service`, `redis`, `postgres`."""

    @abstractmethod
    def post_template(self) -> PostTemplate:
        """The request that posts a message."""

    @abstractmethod
    def stream(self, channel: str, connections: int) -> StreamGroup:
        """Return how to open streams of a channel, live from now."""

    async def prepare(self, channels: list[str]) -> None:
        """Create the channels, in systems that require it."""
        return

    async def counters(self) -> dict[str, int]:
        """Return the stores' counters so far; empty for a system without any."""
        return {}
