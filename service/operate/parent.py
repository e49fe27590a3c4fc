"""Ending a process when its parent dies.

A killed supervisor cannot end its workers: they would keep the port, and the next supervisor could
not start. Linux only: on other systems such processes must be ended by hand.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def end_with(parent_pid: int) -> None:
    """Let the kernel send this process SIGTERM when its parent, `parent_pid`, dies."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    # The parent may have died before the call.
    if os.getppid() != parent_pid:
        signal.raise_signal(signal.SIGTERM)
