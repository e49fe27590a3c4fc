"""Folders and secrets on disk that no other user of the machine can read.

For the servers of `seqstream dev` and the tests; a production process gets its secrets from its
environment and stores none. Nothing here knows what a secret is for.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

# `sun_path` holds 108 bytes on Linux and 104 on macOS, including the terminating zero.
_MOST_SOCKET_PATH_BYTES = 100
# A comma separates hosts in a Postgres URL, and folders in its settings. A path without special
# characters can also be printed as part of a shell command.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./-]+")


def make_private(folder: Path) -> None:
    """Create the folder unless it exists, and close it to all other users."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o777 != 0o700:
        folder.chmod(0o700)


def kept_secret(path: Path) -> str:
    """Return the secret in the file, generated at the first call: 64 hexadecimal digits.

    Processes that call this at the same time get the same secret.
    """
    with _locked(path.parent):
        secret = _read_private(path)
        if not secret:
            secret = secrets.token_hex(32)
            _write_private(path, secret)
        return secret


def socket_folder(folder: Path, socket_name: str) -> Path:
    """Return a folder for a Unix socket: `folder`, or a temporary one if its path is unsuitable.

    The caller removes a temporary one.
    """
    path = folder / socket_name
    fits = len(os.fsencode(path)) < _MOST_SOCKET_PATH_BYTES
    if fits and _PLAIN_PATH.fullmatch(str(path)):
        return folder
    return Path(tempfile.mkdtemp(prefix="seqstream-"))


def _read_private(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        return ""
    with open(descriptor, encoding="ascii") as file:
        if os.fstat(descriptor).st_mode & 0o077:
            os.fchmod(descriptor, 0o600)
        return file.read().strip()


def _write_private(path: Path, secret: str) -> None:
    # Written under another name first: a crash leaves no empty file.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(secret)
            file.flush()
            os.fsync(descriptor)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Released when the descriptor is closed, also by a crash.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
