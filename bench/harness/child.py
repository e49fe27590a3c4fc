"""Load generators as child processes: lines of JSON over standard input and output.

Both ends are here. The parent's end is `Child`; the child's end is `Parent`. What the lines mean
is in messages.py.
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
from array import array
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

import msgspec

from bench.harness.messages import Failed, FromChild, Progress, ToChild

_ROOT = Path(__file__).resolve().parents[2]
_LINE_LIMIT = 64 * 1024 * 1024
_END_TIMEOUT_S = 10.0

_to_child = msgspec.json.Decoder(ToChild)
_from_child = msgspec.json.Decoder(FromChild)

Message = TypeVar("Message")


class ChildError(Exception):
    """A load generator failed, ended early or did not answer in time."""


class Child:
    """The orchestrator's side of a load generator process, run with `python -m module`."""

    def __init__(self, module: str) -> None:
        self._module = module
        self._process: asyncio.subprocess.Process | None = None
        self.progress = 0

    @property
    def pid(self) -> int:
        """The process id of the running child."""
        if self._process is None:
            raise ChildError(f"{self._module} is not running")
        return self._process.pid

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", self._module, cwd=_ROOT, limit=_LINE_LIMIT,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(_ROOT)},
        )  # fmt: skip
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        if exc_type is not None:
            process.kill()
        try:
            await asyncio.wait_for(process.wait(), _END_TIMEOUT_S)
        except TimeoutError:
            process.kill()
            await process.wait()

    async def send(self, message: ToChild) -> None:
        """Send one message."""
        if self._process is None or self._process.stdin is None:
            raise ChildError(f"{self._module} is not running")
        self._process.stdin.write(msgspec.json.encode(message) + b"\n")
        await self._process.stdin.drain()

    async def receive(self, kind: type[Message], timeout_s: float) -> Message:
        """Return the next message that is no progress report; it has to be of `kind`.

        Raises `ChildError` when it is another, or none comes in time.
        """
        if self._process is None or self._process.stdout is None:
            raise ChildError(f"{self._module} is not running")
        try:
            async with asyncio.timeout(timeout_s):
                while True:
                    line = await self._process.stdout.readline()
                    if not line:
                        raise ChildError(f"{self._module} ended early")
                    message = _from_child.decode(line)
                    if isinstance(message, Progress):
                        self.progress = message.count
                    elif isinstance(message, kind):
                        return message
                    elif isinstance(message, Failed):
                        raise ChildError(f"{self._module}: {message.error}")
                    else:
                        raise ChildError(f"{self._module} said {message!r}")
        except TimeoutError as error:
            raise ChildError(
                f"{self._module} did not say {kind.__name__} within {timeout_s:g} s"
            ) from error


class Parent:
    """A load generator's side of the connection to the orchestrator."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        self._reader = reader

    @classmethod
    async def connect(cls) -> Parent:
        """Begin to read standard input."""
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_LINE_LIMIT)
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        return cls(reader)

    async def receive(self, kind: type[Message]) -> Message:
        """Return the next message, which has to be of `kind`. Raises `ChildError`."""
        line = await self._reader.readline()
        if not line:
            raise ChildError("the orchestrator is gone")
        message = _to_child.decode(line)
        if not isinstance(message, kind):
            raise ChildError(f"expected {kind.__name__}, got {type(message).__name__}")
        return message

    def send(self, message: FromChild) -> None:
        """Send one message. Blocks briefly, since lines are short and few."""
        sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
        sys.stdout.buffer.flush()


def write_samples(path: str, samples: array[int]) -> None:
    """Write samples to a file for the parent; they are too many for a message."""
    Path(path).write_bytes(samples.tobytes())


def own_cpu_s() -> float:
    """Return the CPU seconds that this process has used."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
