"""CPU seconds and resident memory of a process and its descendants, from /proc.

Linux only. CPU comes in clock ticks of 10 ms: meaningful over seconds, not over milliseconds.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from pathlib import Path

import msgspec

_QUIET_SAMPLE_S = 1.0
_QUIET_CORES = 0.15
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class Memory(msgspec.Struct, frozen=True):
    """Resident memory of a process tree in KiB. PSS counts shared pages in proportion."""

    rss_kib: int
    pss_kib: int


def tree(pid: int) -> list[int]:
    """Return a process and all its living descendants."""
    found = [pid]
    for parent in found:
        for task in _children_files(parent):
            found += [int(child) for child in task.split()]
    return found


def cpu_seconds(pid: int) -> float:
    """Return user and system time of a process tree, with the children it has waited for.

    Grows only: a child that ends moves its time into its parent's account.
    """
    return sum(_ticks(member) for member in tree(pid)) / _TICKS_PER_S


def memory(pid: int) -> Memory:
    """Return the resident memory of a process tree."""
    rss = pss = 0
    for member in tree(pid):
        try:
            lines = Path(f"/proc/{member}/smaps_rollup").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue  # the process ended after it was listed
        for line in lines:
            if line.startswith("Rss:"):
                rss += int(line.split()[1])
            elif line.startswith("Pss:"):
                pss += int(line.split()[1])
    return Memory(rss, pss)


def machine_busy_seconds() -> float:
    """Return the CPU seconds for which the whole machine was busy, including stolen time."""
    fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(f) for f in fields[:8])
    return (user + nice + system + irq + softirq + steal) / _TICKS_PER_S


async def wait_until_quiet(timeout_s: float) -> None:
    """Wait until the machine has been nearly idle for a second, at most for `timeout_s`.

    For machines that others use too: a round beside somebody's build says little.
    """
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        before = machine_busy_seconds()
        await asyncio.sleep(_QUIET_SAMPLE_S)
        if machine_busy_seconds() - before < _QUIET_CORES * _QUIET_SAMPLE_S:
            return


class CpuMeter:
    """CPU seconds per role between two moments. `pids` maps a role to its root process."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self._pids = dict(pids)
        self._before: dict[str, float] = {}

    def start(self) -> None:
        """Record the current counters."""
        self._before = {role: cpu_seconds(pid) for role, pid in self._pids.items()}

    def stop(self) -> dict[str, float]:
        """Return CPU seconds used since `start`, by role."""
        return {role: cpu_seconds(pid) - self._before[role] for role, pid in self._pids.items()}


def _children_files(pid: int) -> list[str]:
    texts = []
    try:
        paths = list(Path(f"/proc/{pid}/task").glob("*/children"))
    except (FileNotFoundError, ProcessLookupError):
        return []  # the process has ended in the meantime
    for path in paths:
        try:
            texts.append(path.read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue  # a thread or process that has ended in the meantime
    return texts


def _ticks(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    # The name in brackets may contain spaces; utime, stime, cutime and cstime follow it.
    fields = text.rpartition(")")[2].split()
    return sum(int(field) for field in fields[11:15])
