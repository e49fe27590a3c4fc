"""A small disk and a stepping clock, for faults of the machine.

Both affect the test's own processes only: the disk is a tmpfs of its own, the clock is stepped by a
preloaded library. The machine's clock is never set.
"""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

_SHIM_SOURCE = Path(__file__).with_name("clock_shim.c")


def mount_small_disk(folder: Path, *, size_mib: int) -> None:
    """Mount a tmpfs of this size. Raises `subprocess.CalledProcessError` where that is refused."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={size_mib}m,mode=755"
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "seqstream-test", str(folder)],
        check=True, capture_output=True, timeout=10,
    )  # fmt: skip


def unmount_small_disk(folder: Path) -> None:
    """Unmount a small disk."""
    subprocess.run(["umount", str(folder)], check=True, capture_output=True, timeout=10)


def why_no_small_disk() -> str | None:
    """Return why this machine cannot have a small disk, or None when it can."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            mount_small_disk(Path(folder), size_mib=1)
        except (OSError, subprocess.SubprocessError):
            return "a tmpfs cannot be mounted here (it takes root)"
        unmount_small_disk(Path(folder))
    return None


def fill_disk(filler: Path) -> int:
    """Write `filler` until its disk is full; return its size in bytes."""
    with filler.open("wb", buffering=0) as file:
        for block in (2**20, 4096):
            try:
                while True:
                    file.write(b"x" * block)
            except OSError:
                continue
    return filler.stat().st_size


def why_no_stepping_clock() -> str | None:
    """Return why processes cannot have a stepping clock, or None when they can."""
    return None if shutil.which("cc") else "there is no C compiler to build the clock shim with"


class SteppingClock:
    """The wall clock of processes that are started with `environment`."""

    def __init__(self, folder: Path) -> None:
        self._library = folder / "clock_shim.so"
        self._offset = folder / "clock_offset"
        self.step_to(0.0)
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-O1", "-o", str(self._library), str(_SHIM_SOURCE)],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that a process must be started with."""
        return {"LD_PRELOAD": str(self._library), "SEQSTREAM_TEST_CLOCK": str(self._offset)}

    def step_to(self, offset_s: float) -> None:
        """Set how far the clock is ahead of the machine's (negative: behind), at once."""
        data = struct.pack("q", int(offset_s * 1e9))
        if not self._offset.exists():
            self._offset.write_bytes(data)
            return
        # Written in place: the processes have this file mapped.
        with self._offset.open("r+b") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
