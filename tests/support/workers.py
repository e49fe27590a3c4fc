"""Real `seqstream worker` processes for tests, and what streams showed of builds.

Only processes started here are ever signalled, by their id.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from tests.support.history import Event
from tests.support.processes import ROOT
from tests.support.waiting import wait_until

_STOP_TIMEOUT_S = 20.0


class WorkerProcess:
    """One worker process; its output goes to `<name>.log`."""

    def __init__(
        self, name: str, folder: Path, environment: Mapping[str, str], *words: str
    ) -> None:
        self.name = name
        self.log_path = folder / f"{name}.log"
        self._words = words or (sys.executable, "-m", "service.cli", "worker")
        self._environment = dict(environment)
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> Self:
        self.spawn()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.terminate()

    def spawn(self) -> None:
        """Start the process."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self._words, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=ROOT,
                env=self._environment | {"PYTHONPATH": str(ROOT)}, start_new_session=True,
            )  # fmt: skip

    @property
    def pid(self) -> int:
        """Process id."""
        assert self._process is not None
        return self._process.pid

    async def kill(self) -> None:
        """End the process alone with SIGKILL, as a crash would; not what it started."""
        assert self._process is not None
        if self._process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            await self._wait()

    async def terminate(self) -> int:
        """Ask the process to end and return its exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
            await self._wait()
        return self._process.returncode

    async def _wait(self) -> None:
        process = self._process
        assert process is not None
        await wait_until(
            lambda: process.poll() is not None,
            timeout_s=_STOP_TIMEOUT_S,
            what=f"the end of {self.name}",
        )


class BuildContent(msgspec.Struct, frozen=True, rename="camel"):
    """The content of a `build.status`."""

    build_id: str
    version_id: str
    attempt: int
    progress: float | None
    step: str | None
    message: str | None


class Status(msgspec.Struct, frozen=True, rename="camel"):
    """The data of a `build.status`."""

    project_id: str
    user_id: str
    status: str
    content: BuildContent
    timestamp: str
    metadata: dict[str, int]
    entry_id: str | None = None

    @property
    def change(self) -> tuple[str, int]:
        """Status and attempt."""
        return self.status, self.content.attempt


_RANK = {"queued": 0, "in_progress": 1, "completed": 2, "failed": 2}


def statuses(events: Sequence[Event], build_id: str | None = None) -> list[Status]:
    """The `build.status` events, of one build if it is given, in order."""
    found = [
        msgspec.json.decode(event.data, type=Status)
        for event in events
        if event.name == "build.status"
    ]
    return [each for each in found if build_id in (None, each.content.build_id)]


def changes(events: Sequence[Event], build_id: str) -> list[tuple[str, int]]:
    """The changes of status of one build as a client sees them that drops repeats by entryId."""
    seen: list[tuple[str, int]] = []
    entries: set[str] = set()
    for status in statuses(events, build_id):
        if status.entry_id is not None:
            if status.entry_id in entries:
                continue
            entries.add(status.entry_id)
        if not seen or seen[-1] != status.change:
            seen.append(status.change)
    return seen


def applied(events: Sequence[Event], build_id: str) -> tuple[str, int] | None:
    """Where a client ends that applies statuses by build and attempt, as docs/builds.md says."""
    state: tuple[int, int] | None = None
    shown: tuple[str, int] | None = None
    for status in statuses(events, build_id):
        key = (status.content.attempt, _RANK[status.status])
        if state is None or key >= state:
            state, shown = key, status.change
    return shown
