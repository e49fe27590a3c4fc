"""Real `seqstream worker` processes for tests.

Only processes that were started here are signalled, by their id.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

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
        self._words = words or (sys.executable, "-m", "service", "worker")
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
        """End the process with SIGKILL, as a crash would; its children are not signalled."""
        assert self._process is not None
        if self._process.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
            await self._wait()

    async def terminate(self) -> int:
        """End the process with SIGTERM and return its exit status."""
        assert self._process is not None
        if self._process.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
            await self._wait()
        return self._process.returncode

    def is_running(self) -> bool:
        """Tell whether the process is alive."""
        return self._process is not None and self._process.poll() is None

    async def stop(self) -> None:
        """End the process and its group with SIGKILL, in any state."""
        if self.is_running():
            os.killpg(self.pid, signal.SIGKILL)
            await self._wait()

    async def _wait(self) -> None:
        process = self._process
        assert process is not None
        await wait_until(
            lambda: process.poll() is not None,
            timeout_s=_STOP_TIMEOUT_S,
            what=f"the end of {self.name}",
        )
