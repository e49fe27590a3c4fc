"""A client's program that runs: its process, the events that it printed, its end.

Only processes that were started here are signalled, by the id of their group.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from tests.clients.records import Surfaced
from tests.support.processes import log_tail

SUITE = Path(__file__).parent
MAX_EVENTS = 5000
# 64 KiB of text, escaped six-fold in the event and once more in the line.
_LINE_BYTES = 2 * 1024 * 1024
_STOP_TIMEOUT_S = 5.0
_PASSED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR")


class Broken(Exception):
    """A program that cannot go on: it ended, or printed what is no event. Says which."""


class Program:
    """One process; `events` grows while it runs."""

    def __init__(
        self, command: Sequence[str], folder: Path, environment: Mapping[str, str]
    ) -> None:
        self.events: list[Surfaced] = []
        self.fault: str | None = None
        self._command = list(command)
        self._folder = folder
        passed_on = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
        # A home of its own: browsers write profiles.
        self._environment = {**passed_on, "HOME": str(folder), **environment}
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        with self._stderr_path.open("wb") as stderr:
            self._process = await asyncio.create_subprocess_exec(
                *self._command, cwd=SUITE, env=self._environment, limit=_LINE_BYTES,
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=stderr,
                start_new_session=True,
            )  # fmt: skip
        self._reading = asyncio.create_task(self._read())
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process is not None
        assert self._reading is not None
        self._signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), _STOP_TIMEOUT_S)
        # Whatever is left of its group: a shell's children, a browser's.
        self._signal(signal.SIGKILL)
        await self._process.wait()
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    def raise_if_broken(self) -> None:
        """Raise Broken if the program ended or printed what is no event."""
        assert self._process is not None
        if self.fault is not None:
            raise Broken(self.fault)
        assert self._reading is not None
        # Not before what it printed is read.
        if self._process.returncode is not None and self._reading.done():
            raise Broken(f"the program ended with status {self._process.returncode}")

    def stderr_tail(self) -> str:
        """The last lines that it wrote to standard error."""
        return log_tail(self._stderr_path, 12)

    @property
    def _stderr_path(self) -> Path:
        return self._folder / "stderr.log"

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        try:
            while line := await self._process.stdout.readline():
                self.events.append(msgspec.json.decode(line, type=Surfaced))
                if len(self.events) >= MAX_EVENTS:
                    self.fault = f"it surfaced {MAX_EVENTS} events"
                    return
        except (ValueError, msgspec.DecodeError) as error:
            self.fault = f"it printed a line that is no event: {error}"
