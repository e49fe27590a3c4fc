"""The variables that a build's command inherits: none that may hold a secret."""

from __future__ import annotations

from collections.abc import Collection, Mapping

_OF_A_BUILD = frozenset({"PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "TZ", "TMPDIR"})


def of_a_build(environ: Mapping[str, str], more: Collection[str] = ()) -> dict[str, str]:
    """Return the variables that a build's command inherits; `more` names additional ones."""
    return {
        name: value
        for name, value in environ.items()
        if name in _OF_A_BUILD or name.startswith("LC_") or name in more
    }
