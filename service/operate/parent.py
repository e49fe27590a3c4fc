"""A process that ends when the one that started it is gone.

A supervisor that was killed cannot end its workers; left alone, they would keep its port, and the
next one could not start. Linux alone: elsewhere such processes have to be ended by hand.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with(parent_pid: int) -> None:
    """Have this process asked to end (SIGTERM) when its parent, `parent_pid`, is gone."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    # It may have ended before.
    if os.getppid() != parent_pid:
        signal.raise_signal(signal.SIGTERM)
