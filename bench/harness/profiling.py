"""Where a process spends its time: py-spy (bench-only requirement), read as folded stacks."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Self

import msgspec

from bench.harness.servers import CACHE

_LINE_NUMBER = re.compile(r":\d+\)$")
_RATE_HZ = 200
_EVERYWHERE = 0.9
_END_TIMEOUT_S = 30.0


class Profile(msgspec.Struct, frozen=True):
    """Shares of samples by function: in the function itself, and including its callees."""

    samples: int
    own: list[tuple[str, float]]
    total: list[tuple[str, float]]


class Profiler:
    """Samples one process for some seconds; `summary` waits for the end."""

    def __init__(self, process: asyncio.subprocess.Process, path: Path) -> None:
        self._process = process
        self._path = path

    @classmethod
    async def start(cls, pid: int, seconds: float, path: Path) -> Self | None:
        """Start py-spy; return None when it is not installed."""
        program = shutil.which("py-spy", path=str(Path(sys.executable).parent)) or shutil.which(
            "py-spy"
        )
        if program is None:
            return None
        process = await asyncio.create_subprocess_exec(
            program, "record", "--pid", str(pid), "--duration", str(max(int(seconds), 1)),
            "--rate", str(_RATE_HZ), "--format", "raw", "--native", "--output", str(path),
            stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        return cls(process, path)

    async def summary(self) -> Profile | None:
        """Return the profile, or None when py-spy could not sample the process."""
        await asyncio.wait_for(self._process.wait(), _END_TIMEOUT_S)
        if not self._path.exists():
            return None
        return summarise(self._path.read_text().splitlines())


async def profile_during(
    pid: int,
    name: str,
    seconds: float,
    load: Callable[[Callable[[], None]], Coroutine[object, object, object]],
) -> str:
    """Sample a process under load, and return a few lines about where its time went.

    `load` must call the function that it is given once its load has begun; the load then lasts
    `seconds`.
    """
    path = CACHE / f"{name}.folded"
    path.unlink(missing_ok=True)
    starting: list[asyncio.Task[Profiler | None]] = []

    def begin() -> None:
        starting.append(asyncio.create_task(Profiler.start(pid, seconds, path)))

    await load(begin)
    profiler = await starting[0] if starting else None
    found = await profiler.summary() if profiler is not None else None
    return "no profile: py-spy is not installed" if found is None else described(found)


def described(profile: Profile) -> str:
    """Return a few lines of text about a profile."""
    own = ", ".join(f"{name} {share:.1%}" for name, share in profile.own)
    total = ", ".join(f"{name} {share:.1%}" for name, share in profile.total)
    return f"profile of {profile.samples} samples; own: {own}; with callees: {total}"


def summarise(folded: list[str], *, top: int = 25) -> Profile:
    """Sum folded stacks (`frame;frame;frame count`). Pure.

    Functions that nearly every sample passes through (the program's start) are left out of `total`.
    """
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    samples = 0
    for line in folded:
        stack, _, number = line.rpartition(" ")
        if not number.isdigit():
            continue
        count = int(number)
        frames = [_LINE_NUMBER.sub(")", frame) for frame in stack.split(";")]
        samples += count
        own[frames[-1]] += count
        for frame in set(frames):
            total[frame] += count
    return Profile(
        samples=samples,
        own=[(name, count / samples) for name, count in own.most_common(top)],
        total=[
            (name, count / samples)
            for name, count in total.most_common()
            if count < _EVERYWHERE * samples and ".py" in name
        ][: 2 * top],
    )
