"""Two things of the machine that a fault may need: a small disk, and a clock that steps.

Both touch only what was made for the test: a tmpfs of its own, and the clock as its own
processes see it (a preloaded library). The machine's clock is never set.
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
    """Mount a tmpfs of this size; raises `subprocess.CalledProcessError` where that may not be."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={size_mib}m,mode=755"
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "seqstream-test", str(folder)],
        check=True, capture_output=True, timeout=10,
    )  # fmt: skip


def unmount_small_disk(folder: Path) -> None:
    """Unmount it again."""
    subprocess.run(["umount", str(folder)], check=True, capture_output=True, timeout=10)


def why_no_small_disk() -> str | None:
    """Say why this machine cannot have a small disk, or None when it can."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            mount_small_disk(Path(folder), size_mib=1)
        except (OSError, subprocess.SubprocessError):
            return "a tmpfs cannot be mounted here (it takes root)"
        unmount_small_disk(Path(folder))
    return None


def fill_disk(filler: Path) -> int:
    """Take every free block of the disk that `filler` is on; return how many bytes."""
    with filler.open("wb", buffering=0) as file:
        for block in (2**20, 4096):
            try:
                while True:
                    file.write(b"x" * block)
            except OSError:
                continue
    return filler.stat().st_size


def why_no_stepping_clock() -> str | None:
    """Say why processes cannot be given a clock of their own, or None when they can."""
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
        """What a process must have in its environment at its start."""
        return {"LD_PRELOAD": str(self._library), "SEQSTREAM_TEST_CLOCK": str(self._offset)}

    def step_to(self, offset_s: float) -> None:
        """Set how far the clock is ahead (negative: behind) of the machine's, at once."""
        data = struct.pack("q", int(offset_s * 1e9))
        if not self._offset.exists():
            self._offset.write_bytes(data)
            return
        # In place: the processes have this very file mapped.
        with self._offset.open("r+b") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
