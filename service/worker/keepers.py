"""Build commands as processes, each under its own keeper (`build_keeper.py`).

A build may kill its keeper, which runs as the same user: the worker then adopts the remaining
processes, and this module kills them. Other systems than Linux have no keepers: a command is a
process group. What a command reads and writes belongs to `build_command.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from service.worker import build_keeper

_log = logging.getLogger(__name__)

_PROGRAM = str(Path(build_keeper.__file__).resolve())
_IS_LINUX = sys.platform == "linux"
# A build may stop its keeper (SIGSTOP), which then never answers.
_KEEPER_TIMEOUT_S = build_keeper.KILL_TIMEOUT_S + 0.5
_SWEEP_TIMEOUT_S = 1.0
_MAX_REPORT_BYTES = 64


class BuildLimits(msgspec.Struct, frozen=True):
    """Limits of each process of a build; 0 leaves the system's limit unchanged."""

    memory_bytes: int = 0
    file_bytes: int = 0
    processes: int = 0
    """Counts all processes of the user; the kernel does not apply it to root."""
    open_files: int = 0

    def encoded(self) -> str:
        """Return comma-separated resource=limit pairs for the keeper. Core dumps are off."""
        limits = {
            resource.RLIMIT_CORE: 0,
            resource.RLIMIT_AS: self.memory_bytes or None,
            resource.RLIMIT_FSIZE: self.file_bytes or None,
            resource.RLIMIT_NPROC: self.processes or None,
            resource.RLIMIT_NOFILE: self.open_files or None,
        }
        return ",".join(f"{key}={value}" for key, value in limits.items() if value is not None)


class Ended(msgspec.Struct, frozen=True):
    """How a command ended: `status` (negative: by that signal), or `error`, the errno of its start.

    Both are None when its keeper was killed.
    """

    status: int | None = None
    error: int | None = None


class KeptCommand:
    """A running command. `ended` is done when all its processes are gone."""

    def __init__(
        self, process: asyncio.subprocess.Process, control: asyncio.StreamWriter | None
    ) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.stdin, self.stdout, self.stderr = process.stdin, process.stdout, process.stderr
        self.ended: asyncio.Task[Ended]
        self._process = process
        self._control = control
        self._killing: asyncio.TimerHandle | None = None

    def stop(self) -> None:
        """Request that all its processes be killed; does not wait (see `ended`)."""
        if self.ended.done() or self._killing is not None:
            return
        if self._control is None:
            _kill_group(self._process.pid)
            return
        with contextlib.suppress(OSError):
            self._control.write_eof()
        loop = asyncio.get_running_loop()
        self._killing = loop.call_later(_KEEPER_TIMEOUT_S, self._kill_keeper)
        self.ended.add_done_callback(self._has_ended)

    def _has_ended(self, _: asyncio.Task[Ended]) -> None:
        if self._killing is not None:
            self._killing.cancel()

    def _kill_keeper(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()


class Keepers:
    """Starts commands under keepers.

    `adopts`: this process adopts the processes that a dead keeper leaves behind
    (`build_keeper.adopt_orphans`), and has no children other than keepers and those.
    """

    def __init__(
        self, limits: BuildLimits, *, new_privileges: bool = False, adopts: bool = False
    ) -> None:
        self._limits = limits.encoded()
        self._new_privileges = new_privileges
        self._adopts = adopts and _IS_LINUX
        self._keepers: set[int] = set()
        # Held until a new keeper is in `_keepers`: a sweep would take it for an orphan.
        self._starting = asyncio.Lock()
        self._running: set[asyncio.Task[Ended]] = set()

    async def start(self, words: Sequence[str], environ: Mapping[str, str]) -> KeptCommand:
        """Start a command.

        Raises:
            OSError: the keeper could not be started.
        """
        if not _IS_LINUX:
            process = await _spawn(words, environ)
            command = KeptCommand(process, None)
            return self._run(command, _group_ended(process))
        ours, theirs = socket.socketpair()
        with theirs:
            report, control = await asyncio.open_unix_connection(sock=ours)
            privileges = "new" if self._new_privileges else "none"
            keeper = (sys.executable, "-I", "-S", _PROGRAM, str(theirs.fileno()))
            try:
                async with self._starting:
                    process = await _spawn(
                        [*keeper, self._limits, privileges, *words], environ, theirs.fileno()
                    )
                    self._keepers.add(process.pid)
            except BaseException:
                # Cancelled: the keeper may have been started and killed.
                control.close()
                await self._kill_orphans()
                raise
        return self._run(
            KeptCommand(process, control), self._keeper_ended(process, report, control)
        )

    def _run(self, command: KeptCommand, ending: Coroutine[Any, Any, Ended]) -> KeptCommand:
        # A task of its own: whoever waits for the end may be cancelled, this must not be.
        command.ended = asyncio.create_task(ending, name="end of a build's command")
        self._running.add(command.ended)
        command.ended.add_done_callback(self._running.discard)
        return command

    async def close(self) -> None:
        """Wait for the commands that were stopped."""
        if self._running:
            await asyncio.wait(list(self._running), timeout=_KEEPER_TIMEOUT_S + _SWEEP_TIMEOUT_S)

    async def _keeper_ended(
        self,
        process: asyncio.subprocess.Process,
        report: asyncio.StreamReader,
        control: asyncio.StreamWriter,
    ) -> Ended:
        try:
            said = await report.read(_MAX_REPORT_BYTES)
            if not said:
                await self._kill_orphans(process.pid)
            # Returns only when no process holds the pipes any more.
            await process.wait()
        finally:
            control.close()
            self._keepers.discard(process.pid)
        if not said:
            return Ended()
        kind, number, left = said.split()
        if left != b"0":
            _log.error("processes of a build could not be killed", extra={"pid": process.pid})
        return Ended(error=int(number)) if kind == b"error" else Ended(status=int(number))

    async def _kill_orphans(self, dead: int | None = None) -> None:
        """Kill adopted processes of builds without a keeper; `dead` is a keeper that is ending."""
        if not self._adopts:
            return
        loop = asyncio.get_running_loop()
        async with self._starting:
            deadline = loop.time() + _SWEEP_TIMEOUT_S
            reaper = build_keeper.Reaper(self._keepers - {dead})
            while orphans := reaper.kill():
                if loop.time() > deadline:
                    _log.error("orphans of a build could not be killed", extra={"pid": dead})
                    return
                for process in orphans:
                    # asyncio reaps keepers.
                    if process != dead:
                        _reap(process)
                await asyncio.sleep(0)


async def _spawn(
    words: Sequence[str], environ: Mapping[str, str], control: int | None = None
) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *words,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=environ,
        start_new_session=True,
        # Only these descriptors are inherited.
        pass_fds=[] if control is None else [control],
    )


async def _group_ended(process: asyncio.subprocess.Process) -> Ended:
    status = await process.wait()
    _kill_group(process.pid)
    return Ended(status)


def _reap(process: int) -> None:
    with contextlib.suppress(ChildProcessError):
        os.waitpid(process, os.WNOHANG)


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
