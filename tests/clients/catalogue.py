"""The clients, read from `catalogue/`: one file a family of languages.

Data and its checks only. `programs/README.md` describes the fields to those who add a client.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from tests.clients import scenarios

NO_RECONNECTS = "does not reconnect"
FOLDER = Path(__file__).parent / "catalogue"


class Build(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the programs of a family are installed: `folder` is copied, then `commands` run there.

    `needs` are commands that must be on the machine; without one the family is not run.
    """

    name: str
    folder: str
    commands: list[list[str]]
    needs: list[str] = []


class Client(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A client library and its program.

    `command` is relative to the suite's folder; `{build}` is the folder of what was built. What
    the library does not do by itself: without `reconnects`, every scenario that needs it; and
    `limits`, by scenario. `recipe` says what helps, `recipe_command` is the program that shows it.
    `heartbeat_s` is the interval that its URL asks for, for libraries with a short read timeout.
    """

    name: str
    package: str
    version: str
    language: str
    command: list[str]
    reconnects: bool
    build: str | None = None
    needs: list[str] = []
    recipe: str = ""
    recipe_command: list[str] | None = None
    heartbeat_s: int | None = None
    limits: dict[str, str] = {}
    recipe_limits: dict[str, str] = {}

    @property
    def title(self) -> str:
        """Name and language: libraries of several languages have one name."""
        return f"{self.name}, {self.language}"

    def limit(self, scenario: scenarios.Scenario) -> str | None:
        """Why the client alone cannot pass a scenario; None where it has to pass."""
        if scenario.reconnects and not self.reconnects:
            return self.limits.get(scenario.name, NO_RECONNECTS)
        return self.limits.get(scenario.name)


class Catalogue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that one file, or all files together, list."""

    build: list[Build] = []
    client: list[Client] = []


def load(folder: Path = FOLDER) -> Catalogue:
    """Read every file. Raises ValueError for a name that stands twice or that is not there."""
    files = [read(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.toml"))]
    whole = Catalogue(
        [build for file in files for build in file.build],
        [client for file in files for client in file.client],
    )
    _check(whole)
    return whole


def read(text: str) -> Catalogue:
    """Read one file's text."""
    return msgspec.convert(tomllib.loads(text), Catalogue)


def _check(whole: Catalogue) -> None:
    builds = [build.name for build in whole.build]
    clients = [client.title for client in whole.client]
    names: Mapping[str, Sequence[str]] = {"build": builds, "client": clients}
    for kind, listed in names.items():
        for name in listed:
            if listed.count(name) > 1:
                raise ValueError(f"{kind} {name} is listed twice")
    known = {scenario.name for scenario in scenarios.ALL}
    for client in whole.client:
        if client.build is not None and client.build not in builds:
            raise ValueError(f"{client.title}: there is no build {client.build}")
        for scenario in [*client.limits, *client.recipe_limits]:
            if scenario not in known:
                raise ValueError(f"{client.title}: there is no scenario {scenario}")
