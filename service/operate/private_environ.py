"""Which of this process's variables others may see, and how the rest is handed on unseen.

Linux shows the block of variables that a process was started with in `/proc/PID/environ` to every
process of the same user, whatever the process does later. So a process whose environment holds
secrets starts itself anew with a block that holds none, and gets them through a descriptor; what
it puts into `os.environ` then is in its memory alone. What settings mean is not known here.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager

from service.settings import SettingsError
from service.worker import build_keeper
from service.worker.build_environ import of_a_build

_DESCRIPTOR = "SEQSTREAM_ENVIRON_FD"
_MAX_BYTES = 4 * 1024 * 1024

# What the loader and the interpreter read before this program runs.
_OF_A_START = ("PYTHON", "LD_", "MALLOC_", "GLIBC_TUNABLES", "VIRTUAL_ENV")


def hide(*, without: Collection[str]) -> None:
    """Start this process anew if its block shows more than it needs; the new one must `take`.

    Variables named in `without` are not handed on. When this returns, no other process of the
    user can read this one's memory. Elsewhere than on Linux nothing is done.
    """
    if sys.platform != "linux":
        return
    build_keeper.forbid_tracing()
    if _DESCRIPTOR not in os.environ and _shown(os.environ) != dict(os.environ):
        handed = {name: value for name, value in os.environ.items() if name not in without}
        with _descriptor_of(handed) as fd:
            os.set_inheritable(fd, True)
            block = _shown(os.environ) | {_DESCRIPTOR: str(fd)}
            os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], block)


def take() -> None:
    """Put what was handed to this process into `os.environ`, if anything was.

    Raises `SettingsError`.
    """
    number = os.environ.pop(_DESCRIPTOR, None)
    if number is None:
        return
    # What is worth hiding from the block is worth hiding in memory.
    build_keeper.forbid_tracing()
    try:
        with open(int(number), "rb") as file:
            handed = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError, TypeError, OverflowError):  # the last two: too large a number
        raise SettingsError(_DESCRIPTOR, "names no descriptor of an environment") from None
    if len(handed) > _MAX_BYTES:
        raise SettingsError(_DESCRIPTOR, "is of an environment that is too large")
    for item in filter(None, handed.split(b"\0")):
        name, _, value = item.partition(b"=")
        os.environb[name] = value


@contextmanager
def handed(environ: Mapping[str, str]) -> Iterator[tuple[dict[str, str], tuple[int, ...]]]:
    """Yield `env` and `pass_fds` to start a child with that calls `take`."""
    if sys.platform != "linux":
        yield dict(environ), ()
        return
    with _descriptor_of(environ) as fd:
        yield _shown(environ) | {_DESCRIPTOR: str(fd)}, (fd,)


def _shown(environ: Mapping[str, str]) -> dict[str, str]:
    return of_a_build(environ) | {
        name: value for name, value in environ.items() if name.startswith(_OF_A_START)
    }


@contextmanager
def _descriptor_of(environ: Mapping[str, str]) -> Iterator[int]:
    fd = os.memfd_create("environ")
    with open(fd, "r+b") as file:
        for name, value in environ.items():
            file.write(os.fsencode(f"{name}={value}") + b"\0")
        file.flush()
        file.seek(0)
        yield fd
