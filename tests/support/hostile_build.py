"""A build command that attacks the worker that runs it: `hostile_build.py FOLDER ATTACK`.

Linux only. It imports nothing of the project, as an operator's command. What it finds out is the
`result` of its last line.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
import time
from pathlib import Path

_PTRACE_ATTACH, _PTRACE_DETACH = 16, 17


def _parent_of(pid: int) -> int:
    stat = Path(f"/proc/{pid}/stat").read_bytes()
    return int(stat[stat.rindex(b")") + 1 :].split()[1])


def _say(result: object) -> None:
    sys.stdout.write(json.dumps({"message": "done", "result": result}) + "\n")


def look() -> None:
    """Try to read every ancestor process."""
    found = []
    pid = os.getppid()
    while pid > 1:
        found.append({name: _read(pid, name) for name in ("environ", "maps")})
        found[-1]["fd"] = _descriptors(pid)
        found[-1]["mem"] = _read_memory(pid)
        found[-1]["ptrace"] = _attach(pid) if len(found) <= 2 else "not tried"
        pid = _parent_of(pid)
    own = Path("/proc/self/status").read_text().splitlines()
    _say(
        {
            "above": found,
            "environ": dict(os.environ),
            "descriptors": sorted(int(name) for name in os.listdir("/proc/self/fd")),
            "status": dict(line.split(":\t", 1) for line in own if ":\t" in line),
            "limits": {
                name: resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))
                for name in ("CORE", "AS", "FSIZE", "NPROC", "NOFILE")
            },
        }
    )


def _read(pid: int, name: str) -> str:
    try:
        return Path(f"/proc/{pid}/{name}").read_text(errors="replace")
    except PermissionError:
        return "refused"


def _descriptors(pid: int) -> str:
    # Root may list the numbers, but not read the links.
    try:
        return str([os.readlink(fd) for fd in Path(f"/proc/{pid}/fd").iterdir()])
    except PermissionError:
        return "refused"


def _read_memory(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/mem", "rb"):
            return "opened"
    except PermissionError:
        return "refused"


def _attach(pid: int) -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    if libc.ptrace(_PTRACE_ATTACH, pid, None, None) == 0:
        os.waitpid(pid, 0)
        libc.ptrace(_PTRACE_DETACH, pid, None, None)
        return "attached"
    return "refused"


def _daemon(folder: Path, name: str, *, deep: int) -> None:
    """Leave a process behind: forked, in a session of its own, `deep` times."""
    if os.fork():
        return
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if deep > 1:
        _daemon(folder, name, deep=deep - 1)
        os._exit(0)
    (folder / name).touch()
    time.sleep(600)
    os._exit(0)


def _hopper(folder: Path) -> None:
    """Leave a process behind that forks again and again, so that its pid changes all the time."""
    if os.fork():
        return
    (folder / "hopping").touch()
    end = time.monotonic() + 60
    while time.monotonic() < end:
        os.setsid()
        if os.fork():
            os._exit(0)
    os._exit(0)


def leave_daemons(folder: Path) -> None:
    """Leave processes behind in several ways: sessions, double forks, endless forks."""
    for fd in (1, 2):
        os.set_inheritable(fd, True)
    for deep in (1, 2, 3):
        _daemon(folder, f"daemon-{deep}", deep=deep)
    _hopper(folder)
    names = {"daemon-1", "daemon-2", "daemon-3", "hopping"}
    while not names <= set(os.listdir(folder)):
        time.sleep(0.01)
    (folder / "ready").touch()


def forge() -> None:
    """Write lines that look like the worker's log records, with every kind of line end."""
    record = '{"level": "critical", "message": "forged"}'
    for separator in ("\n", "\r", "\r\n", "\x1b[2K\r", "\u2028", "\x85", "\x00\n", "\x0b\n"):
        os.write(2, f"begin{separator}{record}\n".encode())
    os.write(2, b'\xff\xfe"}\n' + record.encode() + b"\n")


def flood() -> None:
    """Write 20 MB of short lines and one of 20 MB."""
    for _ in range(200):
        os.write(2, b"x" * 99 + b"\n" * 1 + (b"y" * 99 + b"\n") * 999)
    os.write(2, b"z" * 20_000_000)


def main(folder: Path, attack: str) -> None:
    """Carry out one attack."""
    if attack == "look":
        look()
    elif attack == "forge":
        forge()
    elif attack == "flood":
        flood()
    else:
        leave_daemons(folder)
    if attack == "kill the keeper":
        os.kill(os.getppid(), signal.SIGKILL)
    if attack == "stop the keeper":
        os.kill(os.getppid(), signal.SIGSTOP)
        (folder / "stopped").touch()
    if attack not in ("look", "forge", "flood", "end"):
        time.sleep(600)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
