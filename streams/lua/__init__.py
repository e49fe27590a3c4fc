"""Redis scripts as files: `script("name")` reads `name.lua`. A script's head is its contract."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files

import msgspec


class Script(msgspec.Struct, frozen=True):
    """A script's text and the SHA by which Redis knows it."""

    name: str
    text: str
    sha: str


@cache
def script(name: str) -> Script:
    """Return the script `<name>.lua`."""
    text = files(__name__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
    # Redis names scripts by SHA-1; nothing secret depends on it.
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
