"""Installs the client libraries and builds their programs, in `.clients/` of the repository.

What it runs is in the catalogue. A build runs again when a file of its folder or a command of it
has changed. Every family has a lock with hashes; nothing is installed into this project.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.clients.catalogue import Build
from tests.clients.program import SUITE
from tests.support.processes import ROOT

BUILD = ROOT / ".clients"
_TIMEOUT_S = 900.0
_NOT_COPIED = ("node_modules", "target", "__pycache__", "venv")


class NotInstalled(Exception):
    """A build that failed or cannot run here. Says why."""


def expand(command: Sequence[str]) -> list[str]:
    """Return a command of the catalogue with its placeholders filled in."""
    values = {"{build}": str(BUILD), "{python}": sys.executable}
    words = list(command)
    for placeholder, value in values.items():
        words = [word.replace(placeholder, value) for word in words]
    return words


async def install(build: Build) -> None:
    """Bring one build up to date. Raises NotInstalled."""
    missing = [name for name in build.needs if shutil.which(name) is None]
    if missing:
        raise NotInstalled(f"needs {', '.join(missing)}")
    source, folder = SUITE / build.folder, BUILD / build.name
    stamp = folder / ".built"
    state = _state(source, build)
    if stamp.exists() and stamp.read_text() == state:
        return
    stamp.unlink(missing_ok=True)
    shutil.copytree(source, folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*_NOT_COPIED))
    for command in build.commands:
        await _run(build.name, expand(command), folder)
    stamp.write_text(state)


async def _run(name: str, command: Sequence[str], folder: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *command, cwd=folder, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT, env=dict(os.environ),
    )  # fmt: skip
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    if process.returncode != 0:
        end = output.decode(errors="replace").splitlines()[-20:]
        raise NotInstalled("\n".join([f"{name}: {command[0]} failed", *end]))


def _state(source: Path, build: Build) -> str:
    digest = hashlib.sha256(repr(build.commands).encode())
    for path in sorted(source.rglob("*")):
        if path.is_file() and not set(path.parts) & set(_NOT_COPIED):
            digest.update(str(path.relative_to(source)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
