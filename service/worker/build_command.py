"""Running one build: the operator's command, or the built-in example.

The command reads its request as JSON and prints one JSON object per line (docs/protocol.md §8).
All reads are bounded. `keepers.py` starts and kills processes; `build_run.py` handles leases and
statuses.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Protocol

import msgspec

from service.worker.build_stderr import StderrLog
from service.worker.keepers import Ended, Keepers, KeptCommand
from streams.model.build import Build, clean

MAX_LINE_BYTES = 48 * 1024
_READ_BYTES = 64 * 1024
_OUTPUT_TIMEOUT_S = 1.0


class Progress(msgspec.Struct, frozen=True):
    """Progress that a build reports; None means unchanged."""

    progress: float | None = None
    step: str | None = None
    message: str | None = None


class Outcome(msgspec.Struct, frozen=True):
    """How a build ended. `result` is JSON; `message` says why it failed."""

    succeeded: bool
    message: str | None = None
    result: bytes | None = None


OnProgress = Callable[[Progress], None]


class Runner(Protocol):
    """Runs builds."""

    async def run(self, build: Build, on_progress: OnProgress) -> Outcome:
        """Run the build to its end. When cancelled, leave no process running."""


class Example:
    """The built-in example: a few steps, about a second."""

    def __init__(self, step_s: float = 0.3) -> None:
        self._step_s = step_s

    async def run(self, build: Build, on_progress: OnProgress) -> Outcome:
        """Report each step, then succeed."""
        steps = ("prepare", "compile", "test", "package")
        for number, step in enumerate(steps):
            on_progress(Progress(100 * number / len(steps), step))
            await asyncio.sleep(self._step_s)
        return Outcome(True, result=msgspec.json.encode({"steps": len(steps)}))


class Command:
    """A command, run without a shell under its own keeper.

    Its environment is `environ` and the ids of build and project, nothing else. Its standard
    error goes to this process's log.
    """

    def __init__(self, words: Sequence[str], environ: Mapping[str, str], keepers: Keepers) -> None:
        self._words = words
        self._environ = environ
        self._keepers = keepers

    async def run(self, build: Build, on_progress: OnProgress) -> Outcome:
        """Run the command; all its processes are killed when it ends or this is cancelled."""
        environ = {**self._environ, "BUILD_ID": build.id, "PROJECT_ID": build.project_id}
        try:
            command = await self._keepers.start(self._words, environ)
        except OSError as error:
            return _not_started(error.strerror or "")
        try:
            return await self._communicate(command, build, on_progress)
        finally:
            command.stop()
            await asyncio.shield(command.ended)

    async def _communicate(
        self, command: KeptCommand, build: Build, on_progress: OnProgress
    ) -> Outcome:
        listener = _Listener(command.stdout, on_progress)
        errors = StderrLog({"project_id": build.project_id, "build_id": build.id})
        tasks = [
            asyncio.create_task(_feed(command.stdin, request(build))),
            asyncio.create_task(listener.listen()),
            asyncio.create_task(errors.follow(lines(command.stderr))),
        ]
        try:
            ended = await asyncio.shield(command.ended)
            await asyncio.wait(tasks[1:], timeout=_OUTPUT_TIMEOUT_S)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        return _outcome(ended, listener.last)


def _not_started(why: str) -> Outcome:
    return Outcome(False, f"the build command could not be started: {why}")


def _outcome(ended: Ended, last: _Line) -> Outcome:
    if ended.error is not None:
        return _not_started(os.strerror(ended.error))
    if ended.status == 0:
        return Outcome(True, last.progress.message, last.result)
    if ended.status is None:
        how = "the keeper of the build command was killed"
    elif ended.status > 0:
        how = f"the build command ended with status {ended.status}"
    else:
        how = f"the build command ended with signal {-ended.status}"
    return Outcome(
        False, f"{how}: {last.progress.message}" if last.progress.message else how, last.result
    )


def request(build: Build) -> bytes:
    """Return what a build command reads on its standard input: one line of JSON."""
    return (
        msgspec.json.encode(
            {
                "buildId": build.id,
                "versionId": build.version_id,
                "projectId": build.project_id,
                "userId": build.user_id,
                "attempt": build.attempt,
                "messageSeq": build.message_seq,
                "messageId": build.message_id,
                "message": build.request,
                "metadata": None if build.metadata is None else msgspec.Raw(build.metadata),
            }
        )
        + b"\n"
    )


class _Line(msgspec.Struct):
    progress: Progress = msgspec.field(default_factory=Progress)
    result: bytes | None = None


class _Listener:
    """Reads the standard output of a build; keeps its last line."""

    def __init__(self, output: asyncio.StreamReader, on_progress: OnProgress) -> None:
        self.last = _Line()
        self._output = output
        self._on_progress = on_progress

    async def listen(self) -> None:
        async for raw in lines(self._output):
            self.last = read_line(raw)
            if self.last.progress != Progress():
                self._on_progress(self.last.progress)


class _OutputObject(msgspec.Struct):
    progress: float | int | None = None
    step: str | None = None
    message: str | None = None
    result: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


_decode = msgspec.json.Decoder(_OutputObject).decode


def read_line(raw: bytes) -> _Line:
    """Decode a line of output: an object of the protocol, else plain text as the message."""
    try:
        found = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = clean(raw.decode("utf-8", "replace").strip())
        return _Line(Progress(message=text or None))
    progress = None if found.progress is None else min(100.0, max(0.0, float(found.progress)))
    return _Line(
        Progress(
            progress,
            None if found.step is None else clean(found.step),
            None if found.message is None else clean(found.message),
        ),
        # A copy: a `Raw` would keep the whole line in memory.
        bytes(found.result) or None,
    )


async def lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield the lines of a stream, each cut at `MAX_LINE_BYTES`."""
    line = bytearray()
    while data := await stream.read(_READ_BYTES):
        first, *rest = data.split(b"\n")
        line += first[: MAX_LINE_BYTES - len(line)]
        for piece in rest:
            yield bytes(line)
            line = bytearray(piece[:MAX_LINE_BYTES])
        # Let other tasks run: a build may print faster than this loop reads.
        await asyncio.sleep(0)
    if line:
        yield bytes(line)


async def _feed(stdin: asyncio.StreamWriter, data: bytes) -> None:
    # A command may ignore its input: not an error.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stdin.write(data)
        await stdin.drain()
    stdin.close()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await stdin.wait_closed()
