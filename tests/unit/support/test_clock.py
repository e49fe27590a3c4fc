"""Steps of the stepping clock change a process's wall clock and not its monotonic clock."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.faults.machine import SteppingClock, why_no_stepping_clock

_READ_TWICE = """
import time, sys
for line in sys.stdin:
    print(time.time(), time.monotonic(), flush=True)
"""


def test_a_running_process_sees_every_step(tmp_path: Path) -> None:
    """The clock steps forward and back by an hour while the process runs."""
    reason = why_no_stepping_clock()
    if reason is not None:
        pytest.skip(reason)
    clock = SteppingClock(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", _READ_TWICE], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True, env=os.environ | clock.environment,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        for offset_s in (0.0, 3600.0, -3600.0):
            clock.step_to(offset_s)
            process.stdin.write("now\n")
            process.stdin.flush()
            wall, monotonic = (float(part) for part in process.stdout.readline().split())
            assert abs(wall - time.time() - offset_s) < 60
            assert abs(monotonic - time.monotonic()) < 60
        process.stdin.close()
