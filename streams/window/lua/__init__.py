"""Redis scripts as files: `script("name")` reads `name.lua`. A script's head is its contract.

A line `-- include <name>` is replaced by the text of `<name>.lua`.
"""

from __future__ import annotations

import hashlib
import re
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
    text = re.sub(r"^-- include (\w+)$", lambda found: _text(found[1]), _text(name), flags=re.M)
    # Redis names scripts by SHA-1; nothing secret depends on it.
    return Script(name, text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


def _text(name: str) -> str:
    return files(__name__).joinpath(f"{name}.lua").read_text(encoding="utf-8")
