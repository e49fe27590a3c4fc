"""Checks of what the processes logged during a fault: the number of lines, and Redis' health.

A fault that lasts for an hour must not fill a disk with log lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tests.faults.world import World
from tests.support.waiting import wait_until

_MOST_LINES = 20
REDIS_DOWN = "redis is unhealthy"
REDIS_UP = "redis is healthy again"


class ProcessLogs:
    """The logs of all processes, from this object's creation on."""

    def __init__(self, world: World) -> None:
        assert world.worker is not None
        self._services = [service.log_path for service in world.services]
        self._begins = {
            path: path.stat().st_size for path in (*self._services, world.worker.log_path)
        }

    async def wait_services(self, text: str, *, timeout_s: float = 20.0) -> None:
        """Wait until every service process has logged this text."""
        await wait_until(
            lambda: all(self._with(path, text) for path in self._services),
            timeout_s=timeout_s,
            what=f"'{text}' of every process",
        )

    def check_bounded(self) -> None:
        """Raise AssertionError when a process wrote `_MOST_LINES` or more."""
        for path in self._begins:
            lines = self._lines(path)
            assert len(lines) < _MOST_LINES, f"{path.stem} wrote {len(lines)} lines: {lines[-1]}"

    def check_redis_changed_once(self) -> None:
        """Raise AssertionError unless each service logged one outage of Redis and one recovery."""
        for path in self._services:
            changes = self._with(path, REDIS_DOWN, REDIS_UP)
            text = "\n".join(changes)
            assert len(changes) == 2, f"{path.stem}: {len(changes)} changes of health:\n{text}"
            assert REDIS_DOWN in changes[0], text
            assert REDIS_UP in changes[1], text

    def _with(self, path: Path, *texts: str) -> Sequence[str]:
        return [line for line in self._lines(path) if any(text in line for text in texts)]

    def _lines(self, path: Path) -> list[str]:
        with path.open("rb") as file:
            file.seek(self._begins[path])
            return file.read().decode(errors="replace").splitlines()
