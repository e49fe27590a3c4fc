"""Launching an embedded server: as which user, and ended when its parent dies.

Uses `setpriv` of util-linux, present on every Debian. As a separate program it avoids code between
fork and exec in a process with threads. Without it (macOS) a server runs as the caller and outlives
a killed parent.
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

# Capabilities that let a non-root process enter folders closed to it, the weaker one first. A
# program that only its owner may run (installed under umask 077) needs the second; an unprivileged
# container often has only the second.
_CAPABILITIES: Final = ("dac_read_search", "dac_override")


class Account(msgspec.Struct, frozen=True):
    """A user of this machine."""

    name: str
    uid: int
    gid: int


def account(name: str) -> Account | None:
    """Return the user of that name, created as a system user if missing; None if that fails."""
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
    """Return a command prefix: the command gets this signal when its parent dies."""
    setpriv = shutil.which("setpriv")
    return [] if setpriv is None else [setpriv, "--pdeathsig", number.name.removeprefix("SIG")]


def as_user(who: Account, program: Path, folder: Path) -> list[str] | None:
    """Return a command prefix that runs it as another user; None if that cannot work.

    The user must be able to run `program` and to write to `folder`, which it owns, although both
    may be below folders that only root may enter, such as /root. Their modes are not changed: only
    the process gets a capability, and it cannot gain more rights.
    """
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        return None
    plain = [
        setpriv, f"--reuid={who.uid}", f"--regid={who.gid}", "--clear-groups", "--no-new-privs",
    ]  # fmt: skip
    for capability in _CAPABILITIES:
        only = f"-all,+{capability}"
        # Postgres calls access(2) on its programs, which ignores the capabilities of non-root
        # users without this bit (capabilities(7), SECBIT_NO_SETUID_FIXUP).
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
    # Postgres programs only warn about what they cannot reach: any output counts as failure.
    return asked.returncode == 0 and not asked.stderr
