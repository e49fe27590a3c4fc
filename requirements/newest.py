"""Print the requirements of `make newest`: those of pyproject.toml, without locks.

`within` keeps every bound. `beyond` drops the upper bounds of the drivers, so that a run shows
whether a new version of one works before its bound is raised.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

DRIVERS = {"asyncpg", "httptools", "redis", "uvicorn", "uvloop"}


def requirements(text: str, bounds: str) -> list[str]:
    """Return the requirements of production, of the embedded servers, and of development."""
    document = tomllib.loads(text)
    wanted = [
        *document["project"]["dependencies"],
        *document["project"]["optional-dependencies"]["embedded"],
        *document["dependency-groups"]["dev"],
    ]
    return wanted if bounds == "within" else [without_upper_bound(each) for each in wanted]


def without_upper_bound(requirement: str) -> str:
    """Drop what is above, and exact versions, of a driver; leave other requirements alone."""
    named = re.match(r"([A-Za-z0-9._-]+(?:\[[^\]]*\])?)(.*)", requirement)
    assert named is not None
    name, bounds = named.groups()
    if name.split("[")[0] not in DRIVERS:
        return requirement
    lower = [each.strip() for each in bounds.split(",") if each.strip().startswith((">", "!="))]
    return name + ",".join(lower)


if __name__ == "__main__":
    text = Path(__file__).parent.parent.joinpath("pyproject.toml").read_text()
    sys.stdout.write("\n".join(requirements(text, sys.argv[1])) + "\n")
