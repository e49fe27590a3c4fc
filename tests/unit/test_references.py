"""What the texts refer to is there: files, sections of the protocol, and no other document."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.processes import ROOT

_FOLDERS = ("streams", "service", "tests", "bench", "docs")
_TEXTS = sorted(
    path
    for path in [
        *ROOT.glob("*.md"),
        *(file for folder in _FOLDERS for file in (ROOT / folder).rglob("*")),
    ]
    if path.suffix in {".py", ".md", ".sql", ".lua", ".c", ".html", ".js", ".mjs"}
    and "node_modules" not in path.parts
    and path.name != Path(__file__).name
)
_SUFFIXES = r"(?:py|md|sql|lua|c|js|mjs|html|yaml|toml)"
_QUOTED_PATH = re.compile(rf"`((?:[\w.-]+/)*[\w.-]+\.{_SUFFIXES})`")
_PLAIN_PATH = re.compile(
    rf"(?<![\w/.:])((?:streams|service|tests|bench|docs)/[\w./-]+\.{_SUFFIXES})\b"
)
_SECTION = re.compile(r"docs/protocol\.md`?,? §(\d+)")
_NOT_HERE = re.compile(r"(?<![/_])\b(?:PROTOCOL|DESIGN|STYLE)\b(?!_)|\bIssue:")


# They stand for any name.
_PLACEHOLDERS = {"name.sql", "name.lua", "streams/log/sql/migrations/NNNN_name.sql"}
# Of the libraries under test in tests/clients.
_OF_OTHERS = {"parse.js", "sse.js", "docs/api/EventSource.md"}


def _ends_of_paths() -> set[str]:
    """Every file by its name, and by each longer end of its path."""
    files = [path for path in ROOT.glob("*") if path.is_file()]
    for folder in _FOLDERS:
        files += (ROOT / folder).rglob("*")
    parts = [path.relative_to(ROOT).parts for path in files]
    return {"/".join(each[-count:]) for each in parts for count in range(1, len(each) + 1)}


def _found(pattern: re.Pattern[str]) -> Iterator[tuple[Path, str]]:
    for path in _TEXTS:
        for found in pattern.finditer(path.read_text(encoding="utf-8")):
            yield path.relative_to(ROOT), found[1] if found.groups() else found[0]


def test_files_that_texts_name_exist() -> None:
    """By their name, by the end of their path, or by a path from the text's own folder."""
    known = _ends_of_paths() | _PLACEHOLDERS | _OF_OTHERS
    missing = [
        f"{path}: {named}"
        for path, named in [*_found(_QUOTED_PATH), *_found(_PLAIN_PATH)]
        if named not in known and not (ROOT / path.parent / named).exists()
    ]
    assert missing == []


def test_sections_of_the_protocol_that_texts_name_exist() -> None:
    """docs/protocol.md has the sections that code and tests refer to."""
    text = (ROOT / "docs" / "protocol.md").read_text(encoding="utf-8")
    sections = set(re.findall(r"^## (\d+)\.? ", text, re.M))
    assert [
        f"{path}: §{number}" for path, number in _found(_SECTION) if number not in sections
    ] == []


def test_no_text_refers_to_a_document_that_is_not_here() -> None:
    """The protocol is docs/protocol.md, the design docs/design.md."""
    assert [f"{path}: {word}" for path, word in _found(_NOT_HERE)] == []


@pytest.mark.parametrize("number", range(4))
def test_a_walk_names_each_file_once(number: int) -> None:
    """docs/architecture.md: four walks, each a list of files in order."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    walks = re.split(r"^## Walk", text, flags=re.M)[1:]
    assert len(walks) == 4
    files = re.findall(r"^\s*(?:\d+\.|-) `([^`]+)`", walks[number], re.M)
    assert len(files) > 5
    assert len(files) == len(set(files))
    assert [name for name in files if not (ROOT / name).is_file()] == []
