"""The interface that every measured system has: start, stop, where to post, where to read."""

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
        """Say why this system cannot be had here; None when it can."""
        return None

    @abstractmethod
    async def start(self) -> None:
        """Start all its processes and wait until they answer."""

    @abstractmethod
    async def stop(self) -> None:
        """End all its processes."""

    @property
    @abstractmethod
    def port(self) -> int:
        """The loopback port of its HTTP server."""

    @property
    @abstractmethod
    def pids(self) -> dict[str, int]:
        """Its root processes by role: `service`, `redis`, `postgres`."""

    @abstractmethod
    def post_template(self) -> PostTemplate:
        """How it takes a message."""

    @abstractmethod
    def stream(self, channel: str, connections: int) -> StreamGroup:
        """How its streams of a channel are opened, live from now."""

    async def prepare(self, channels: list[str]) -> None:
        """Create the channels, where that is needed."""
        return

    async def counters(self) -> dict[str, int]:
        """Return what its stores have counted so far; empty when nobody counts."""
        return {}
