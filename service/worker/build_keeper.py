"""The keeper of one build: starts its command, and kills all its processes at the end.

A separate program (`python -I -S build_keeper.py CONTROL LIMITS PRIVILEGES WORD...`) that
`keepers.py` starts for each build: it must import few modules, and none of this project. All
processes of the build stay descendants of the keeper, because it adopts those whose parents ended
(`PR_SET_CHILD_SUBREAPER`): `setsid` and double forks do not escape. When the command has ended, or
the worker closes the control socket or dies, the keeper kills them all, reports, and ends. Linux
only.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import select
import sys
import time
from collections.abc import Collection

_SET_PDEATHSIG = 1
_SET_DUMPABLE = 4
_CAPBSET_READ = 23
_CAPBSET_DROP = 24
_SET_CHILD_SUBREAPER = 36
_SET_NO_NEW_PRIVS = 38
_CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL = 47, 4

# From signal(7): importing `signal` would add half of this program's start-up time.
_SIGKILL, _SIGPIPE, _SIGXFSZ = 9, 13, 25

# Capabilities that a build as root keeps: it may change files and users, but not inspect other
# processes or change the machine. chown, dac_override, fowner, fsetid, setgid, setuid, setpcap,
# net_bind_service, sys_chroot, setfcap.
_KEPT_CAPABILITIES = frozenset({0, 1, 3, 4, 6, 7, 8, 10, 18, 31})
_MOST_CAPABILITIES = 64

KILL_TIMEOUT_S = 2.0
_REAP_EVERY_MS = 1000
# The kernel does not reuse a process id within this many rounds.
_ROUNDS_UNTIL_REUSE = 100
# How often the processes are read again because a parent ended meanwhile.
_REREADS = 10


def prctl(option: int, first: int = 0, second: int = 0) -> int:
    """Call prctl(2).

    Raises:
        OSError: it failed.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4
    result: int = libc.prctl(option, first, second, 0, 0)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def forbid_tracing() -> None:
    """Close this process's memory and environment to other processes of the same user."""
    prctl(_SET_DUMPABLE, 0)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    prctl(_SET_CHILD_SUBREAPER, 1)


class Reaper:
    """Kills all descendants of this process, except `spared` and their descendants.

    A process may fork and end faster than `/proc` can be read. So each process is killed as soon as
    it is seen, with its process group (a group cannot escape a signal by forking), and processes
    found elsewhere in the tree are not read again.
    """

    def __init__(self, spared: Collection[int] = ()) -> None:
        self._spared = spared
        self._here = os.getpid()
        self._own_group = os.getpgrp()
        self._elsewhere: set[int] = set()
        self._rounds = 0

    def kill(self) -> list[int]:
        """Kill one round of descendants. Return the direct children among them, to be reaped."""
        children, moved = self._round()
        for _ in range(_REREADS):
            if not moved:
                break
            more, moved = self._round()
            children += more
        return children

    def _round(self) -> tuple[list[int], bool]:
        """Return the direct children, and whether some process lost its parent while it was read.

        That one may have been adopted by this process since, so it is not taken for another's.
        """
        if self._rounds % _ROUNDS_UNTIL_REUSE == 0:
            self._elsewhere = set(self._spared)
        self._rounds += 1
        below = {self._here}
        unsure: dict[int, tuple[int, int]] = {}
        children = []
        # The newest first: it may end before it is read.
        for process in sorted(_processes(), reverse=True):
            if process in self._elsewhere or (found := _parent_and_group(process)) is None:
                continue
            if found[0] == self._here:
                children.append(process)
            if found[0] in below:
                self._kill(process, found[1])
                below.add(process)
            else:
                unsure[process] = found
        while fresh := [process for process, (parent, _) in unsure.items() if parent in below]:
            for process in fresh:
                self._kill(process, unsure.pop(process)[1])
                below.add(process)
        known = {0, *self._elsewhere, *unsure}
        kept = {process for process, (parent, _) in unsure.items() if parent in known}
        self._elsewhere |= kept
        return children, len(kept) < len(unsure)

    def _kill(self, process: int, group: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process, _SIGKILL)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if group not in (0, self._own_group):
                os.killpg(group, _SIGKILL)


def _processes() -> list[int]:
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]


def _parent_and_group(process: int) -> tuple[int, int] | None:
    try:
        with open(f"/proc/{process}/stat", "rb", buffering=0) as file:
            stat = file.read()
    except OSError:
        return None
    # The program's name may contain any character; it ends at the last parenthesis.
    _, parent, group, _ = stat[stat.rindex(b")") + 1 :].split(None, 3)
    return int(parent), int(group)


def _kill_all() -> bool:
    """Kill all descendants of this process; return whether none is left."""
    deadline = time.monotonic() + KILL_TIMEOUT_S
    reaper = Reaper()
    while _reap() is not None:
        if time.monotonic() > deadline:
            # They run as another user, or are blocked in the kernel.
            return False
        reaper.kill()
    return True


def _reap(child: int = 0) -> int | None:
    """Reap the children that ended. Return the status of `child` if it is among them, else -1;
    None when there are no children at all.
    """
    status = -1
    while True:
        try:
            process, ended = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return None if status < 0 else status
        if process == 0:
            return status
        if process == child:
            status = ended


def _wait(control: int, child: int) -> int | None:
    """Wait until the child ends, and return its status; None when the worker requests the end."""
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(os.pidfd_open(child), select.POLLIN)
    while True:
        # Also reap adopted children that ended: no other process does.
        ready = [fd for fd, _ in poll.poll(_REAP_EVERY_MS)]
        status = _reap(child)
        if status is None or status >= 0:
            return status
        if control in ready:
            return None


def _confine(limits: str, *, new_privileges: bool) -> None:
    for limit in limits.split(","):
        number, _, value = limit.partition("=")
        _, hard = resource.getrlimit(int(number))
        most = int(value) if hard == resource.RLIM_INFINITY else min(int(value), hard)
        resource.setrlimit(int(number), (most, most))
    with contextlib.suppress(OSError):  # kernels before 4.3 have none
        prctl(_CAP_AMBIENT, _CAP_AMBIENT_CLEAR_ALL)
    if os.geteuid() == 0:
        for capability in range(_MOST_CAPABILITIES):
            try:
                held = prctl(_CAPBSET_READ, capability)
            except OSError:
                break
            if held and capability not in _KEPT_CAPABILITIES:
                prctl(_CAPBSET_DROP, capability)
    if not new_privileges:
        prctl(_SET_NO_NEW_PRIVS, 1)


def _start(words: list[str], limits: str, *, new_privileges: bool) -> int:
    """Start the command in its own session.

    Raises:
        OSError: it cannot be executed.
    """
    keeper = os.getpid()
    failed, failing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setsid()
            prctl(_SET_PDEATHSIG, _SIGKILL)
            if os.getppid() == keeper:
                _confine(limits, new_privileges=new_privileges)
                # Python ignores these signals, and exec keeps ignored signals ignored.
                libc = ctypes.CDLL(None)
                for number in (_SIGPIPE, _SIGXFSZ):
                    libc.signal(number, None)
                os.execvp(words[0], words)
        except OSError as error:
            os.write(failing, str(error.errno or errno.EINVAL).encode())
        finally:
            os._exit(127)
    os.close(failing)
    # A successful exec closes the other end: the read then returns nothing.
    if number_of_error := os.read(failed, 16):
        raise OSError(int(number_of_error), "")
    os.close(failed)
    return child


def main(control: int, limits: str, privileges: str, words: list[str]) -> None:
    """Keep one command from its start to the end of its last process."""
    os.set_inheritable(control, False)
    forbid_tracing()
    adopt_orphans()
    try:
        child = _start(words, limits, new_privileges=privileges == "new")
    except OSError as error:
        os.write(control, b"error %d 0" % (error.errno or errno.EINVAL))
        return
    # Now only the build holds its pipes: they close when it ends.
    null = os.open(os.devnull, os.O_RDWR)
    for fd in range(3):
        os.dup2(null, fd)
    status = _wait(control, child)
    is_clean = _kill_all()
    code = -_SIGKILL if status is None else os.waitstatus_to_exitcode(status)
    with contextlib.suppress(OSError):  # the worker died: nobody reads the report
        os.write(control, b"ended %d %d" % (code, not is_clean))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4:])
