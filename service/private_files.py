"""Folders and secrets on disk that no other user of the machine can read.

For the servers that `seqstream dev` and the tests start; a production process is given its secrets
and keeps none. Nothing here knows what a secret is for.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import tempfile
from pathlib import Path

# `sun_path` holds 108 bytes on Linux and 104 on macOS, the closing zero included.
_MOST_SOCKET_PATH_BYTES = 100
# A comma separates hosts in a URL of Postgres, and folders in its settings. What needs no quoting
# can also be printed as a command to type.
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_./-]+")


def make_private(folder: Path) -> None:
    """Create the folder unless it is there, and close it to all other users."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o777 != 0o700:
        folder.chmod(0o700)


def kept_secret(path: Path) -> str:
    """Return the secret in the file, made at the first call: 64 hexadecimal digits."""
    while not (secret := _read_private(path)):
        _write_private(path, secrets.token_hex(32))
    return secret


def socket_folder(folder: Path, socket_name: str) -> Path:
    """Return a folder for a Unix socket: `folder`, or a temporary one where its path will not do.

    Whoever asked removes a temporary one: see `is_temporary`.
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
    # Whole under another name first: a crash leaves no empty file, and of two processes that begin
    # together both then read what the first one wrote.
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(descriptor, "w", encoding="ascii") as file:
            file.write(secret)
            file.flush()
            os.fsync(descriptor)
        # One that an earlier version left empty.
        if not _read_private(path):
            path.unlink(missing_ok=True)
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
    finally:
        os.unlink(name)
