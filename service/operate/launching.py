"""How an embedded server is launched: as whom, and what happens to it when its parent dies.

By `setpriv` of util-linux, which every Debian has. It is a program of its own, so that nothing has
to be done between fork and exec in a process with threads. Where there is none (macOS) a server
runs as it would without this file.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec

_TIMEOUT_S = 30.0

# What lets a process that is not root pass through folders that are closed to it, the weaker one
# first. A program that only its owner may run (installed under the umask 077) needs the other.
# An unprivileged container often has the second alone.
_CAPABILITIES: Final = ("dac_read_search", "dac_override")


class Account(msgspec.Struct, frozen=True):
    """A user of this machine."""

    name: str
    uid: int
    gid: int


def account(name: str) -> Account | None:
    """Return the user of that name, made as a system user if need be; None if it cannot be had."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        try:
            subprocess.run(
                ["useradd", "--system", "--no-create-home", "--shell", "/usr/sbin/nologin", name],
                check=True, timeout=_TIMEOUT_S, capture_output=True,
            )  # fmt: skip
            entry = pwd.getpwnam(name)
        except (OSError, subprocess.SubprocessError, KeyError):
            return None
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def with_parent(number: signal.Signals) -> list[str]:
    """Return the words before a command that get it this signal when its parent dies."""
    setpriv = shutil.which("setpriv")
    return [] if setpriv is None else [setpriv, "--pdeathsig", number.name.removeprefix("SIG")]


def as_user(who: Account, program: Path, folder: Path) -> list[str] | None:
    """Return the words before a command that run it as another user; None if that cannot work.

    The user must be able to run `program` and to work in `folder`, its own, although both may lie
    below folders that only root may pass, as in /root. Nobody is let into those for it: the process
    alone gets a capability, and has no other way to more rights.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return None
    plain = [
        setpriv, f"--reuid={who.uid}", f"--regid={who.gid}", "--clear-groups", "--no-new-privs",
    ]  # fmt: skip
    for capability in _CAPABILITIES:
        only = f"-all,+{capability}"
        # Postgres asks access(2) for its programs, which heeds no capability of a user other than
        # root without this bit (capabilities(7), SECBIT_NO_SETUID_FIXUP).
        prefix = [*plain, "--securebits=+no_setuid_fixup"]
        prefix += [f"--inh-caps={only}", f"--ambient-caps={only}", f"--bounding-set={only}"]
        if _can_work(prefix, program, folder):
            return prefix
    return plain if _can_work(plain, program, folder) else None


def _can_work(prefix: Sequence[str], program: Path, folder: Path) -> bool:
    question = 'cd "$1" && test -w . && exec "$0" --version'
    try:
        asked = subprocess.run(
            [*prefix, "/bin/sh", "-c", question, str(program), str(folder)],
            cwd="/", timeout=_TIMEOUT_S, capture_output=True, env={"PATH": os.defpath},
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return False
    # Postgres' programs complain of what they cannot reach, and go on.
    return asked.returncode == 0 and not asked.stderr
