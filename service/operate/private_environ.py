"""Keeping secrets out of `/proc/PID/environ`.

Linux shows the environment that a process was started with in `/proc/PID/environ` to every process
of the same user, whatever the process does later. So a process with secrets in its environment
executes itself again with an environment that has none, and reads the other variables from an
inherited descriptor: in `os.environ` they are only in its memory. Knows nothing of what the
variables mean.
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

# Prefixes of what the loader and the interpreter read before our code runs.
_START_PREFIXES = ("PYTHON", "LD_", "MALLOC_", "GLIBC_TUNABLES", "VIRTUAL_ENV")


def hide(*, without: Collection[str]) -> None:
    """Execute this process again if its initial environment shows more than needed.

    The new process must call `take`. Variables named in `without` are dropped. When this returns,
    no other process of the user can read this process's memory. Does nothing on systems other than
    Linux.
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
    """Read the variables from the inherited descriptor, if there is one, into `os.environ`.

    Raises:
        SettingsError: the descriptor is not one of an environment, or it is too large.
    """
    number = os.environ.pop(_DESCRIPTOR, None)
    if number is None:
        return
    # Memory must not show what `/proc/PID/environ` hides.
    build_keeper.forbid_tracing()
    try:
        with open(int(number), "rb") as file:
            handed = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError, TypeError, OverflowError):  # the last two: number too large
        raise SettingsError(_DESCRIPTOR, "names no descriptor of an environment") from None
    if len(handed) > _MAX_BYTES:
        raise SettingsError(_DESCRIPTOR, "is of an environment that is too large")
    for item in filter(None, handed.split(b"\0")):
        name, _, value = item.partition(b"=")
        os.environb[name] = value


@contextmanager
def handed(environ: Mapping[str, str]) -> Iterator[tuple[dict[str, str], tuple[int, ...]]]:
    """Yield `env` and `pass_fds` for starting a child that calls `take`."""
    if sys.platform != "linux":
        yield dict(environ), ()
        return
    with _descriptor_of(environ) as fd:
        yield _shown(environ) | {_DESCRIPTOR: str(fd)}, (fd,)


def _shown(environ: Mapping[str, str]) -> dict[str, str]:
    return of_a_build(environ) | {
        name: value for name, value in environ.items() if name.startswith(_START_PREFIXES)
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
