"""The locks of the programs in Go, Java and Rust: the versions of the table, and no address."""

from __future__ import annotations

import re

import pytest

from tests.clients import catalogue
from tests.clients.catalogue import Client
from tests.clients.program import SUITE

_LANGUAGES = {"Go": "go", "Java": "java", "Rust": "rust"}
# The format's own name of the registry, whichever mirror serves it.
_CRATES = "registry+https://github.com/rust-lang/crates.io-index"


def locked(language: str) -> str:
    """Return the text of the files that fix a language's versions."""
    names = {"go": ["go.sum"], "java": ["*/pom.xml"], "rust": ["Cargo.lock"]}[language]
    folder = SUITE / "programs" / language
    return "".join(path.read_text() for name in names for path in sorted(folder.glob(name)))


def lock_line(client: Client) -> str:
    """Return how a lock states the client's version."""
    if client.language == "Go":
        return f"{client.package} v{client.version} h1:"
    if client.language == "Rust":
        return f'name = "{client.package}"\nversion = "{client.version}"\n'
    group, artifact = client.package.split(":")
    return (
        f"<groupId>{group}</groupId>\n      <artifactId>{artifact}</artifactId>\n"
        f"      <version>{client.version}</version>"
    )


def test_versions_of_the_table_are_those_of_the_locks() -> None:
    """What the table says is what is installed."""
    clients = [each for each in catalogue.load().client if each.language in _LANGUAGES]
    assert {client.language for client in clients} == set(_LANGUAGES)
    for client in clients:
        assert lock_line(client) in locked(_LANGUAGES[client.language]), client.name


@pytest.mark.parametrize("language", _LANGUAGES.values())
def test_a_lock_names_no_registry(language: str) -> None:
    """The locks install from whichever registry the machine uses."""
    text = locked(language).replace(_CRATES, "").replace("http://maven.apache.org/POM/4.0.0", "")
    assert re.findall(r"\S*://\S*|<repositor\w+>", text) == []
