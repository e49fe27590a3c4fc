"""Running one build: the operator's command, or the built-in example.

The request goes in as JSON, one JSON object a line comes out (docs/protocol.md §8). Everything
that is read is bounded. Processes are started and ended by `keepers.py`; leases and statuses are
not known here (`build_run.py`).
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
_LAST_WORDS_S = 1.0


class Progress(msgspec.Struct, frozen=True):
    """What a build says of itself; what is not given has not changed."""

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
    """Something that carries out builds."""

    async def run(self, build: Build, say: OnProgress) -> Outcome:
        """Carry it out to its end. Cancelled, it leaves nothing running behind."""


class Example:
    """The built-in example: a few steps, about a second."""

    def __init__(self, step_s: float = 0.3) -> None:
        self._step_s = step_s

    async def run(self, build: Build, say: OnProgress) -> Outcome:
        """Count through the steps."""
        steps = ("prepare", "compile", "test", "package")
        for number, step in enumerate(steps):
            say(Progress(100 * number / len(steps), step))
            await asyncio.sleep(self._step_s)
        return Outcome(True, result=msgspec.json.encode({"steps": len(steps)}))


class Command:
    """A command, run without a shell under a keeper of its own.

    `environ` is all of its environment, with the build's and the project's id. Its standard error
    goes into this process's log.
    """

    def __init__(self, words: Sequence[str], environ: Mapping[str, str], keepers: Keepers) -> None:
        self._words = words
        self._environ = environ
        self._keepers = keepers

    async def run(self, build: Build, say: OnProgress) -> Outcome:
        """Run the command; all its processes are killed when it ends or this is cancelled."""
        environ = {**self._environ, "BUILD_ID": build.id, "PROJECT_ID": build.project_id}
        try:
            command = await self._keepers.start(self._words, environ)
        except OSError as error:
            return _not_started(error.strerror or "")
        try:
            return await self._attend(command, build, say)
        finally:
            command.stop()
            await asyncio.shield(command.ended)

    async def _attend(self, command: KeptCommand, build: Build, say: OnProgress) -> Outcome:
        listener = _Listener(command.stdout, say)
        errors = StderrLog({"project_id": build.project_id, "build_id": build.id})
        tasks = [
            asyncio.create_task(_feed(command.stdin, request(build))),
            asyncio.create_task(listener.listen()),
            asyncio.create_task(errors.follow(lines(command.stderr))),
        ]
        try:
            ended = await asyncio.shield(command.ended)
            await asyncio.wait(tasks[1:], timeout=_LAST_WORDS_S)
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
        return Outcome(True, last.said.message, last.result)
    if ended.status is None:
        how = "the keeper of the build command was killed"
    elif ended.status > 0:
        how = f"the build command ended with status {ended.status}"
    else:
        how = f"the build command ended with signal {-ended.status}"
    return Outcome(False, f"{how}: {last.said.message}" if last.said.message else how, last.result)


def request(build: Build) -> bytes:
    """What a build command reads on its standard input: one line of JSON."""
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
    said: Progress = msgspec.field(default_factory=Progress)
    result: bytes | None = None


class _Listener:
    """Reads what a build says; keeps its last line."""

    def __init__(self, output: asyncio.StreamReader, say: OnProgress) -> None:
        self.last = _Line()
        self._output = output
        self._say = say

    async def listen(self) -> None:
        async for raw in lines(self._output):
            self.last = read_line(raw)
            if self.last.said != Progress():
                self._say(self.last.said)


class _Said(msgspec.Struct):
    progress: float | int | None = None
    step: str | None = None
    message: str | None = None
    result: msgspec.Raw = msgspec.field(default_factory=msgspec.Raw)


_decode = msgspec.json.Decoder(_Said).decode


def read_line(raw: bytes) -> _Line:
    """Read a line of a build's output: an object of the protocol, or else a message."""
    try:
        said = _decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = clean(raw.decode("utf-8", "replace").strip())
        return _Line(Progress(message=text or None))
    progress = None if said.progress is None else min(100.0, max(0.0, float(said.progress)))
    return _Line(
        Progress(
            progress,
            None if said.step is None else clean(said.step),
            None if said.message is None else clean(said.message),
        ),
        # A copy: the line it points into is not kept.
        bytes(said.result) or None,
    )


async def lines(stream: asyncio.StreamReader) -> AsyncIterator[bytes]:
    """Yield the lines of a stream; what is beyond `MAX_LINE_BYTES` of a line is dropped."""
    line = bytearray()
    while data := await stream.read(_READ_BYTES):
        first, *rest = data.split(b"\n")
        line += first[: MAX_LINE_BYTES - len(line)]
        for piece in rest:
            yield bytes(line)
            line = bytearray(piece[:MAX_LINE_BYTES])
        # Let others run: a build may print faster than it can be read.
        await asyncio.sleep(0)
    if line:
        yield bytes(line)


async def _feed(stdin: asyncio.StreamWriter, data: bytes) -> None:
    # A command that does not read its input is no error.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        stdin.write(data)
        await stdin.drain()
    stdin.close()
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        await stdin.wait_closed()
