"""Files that browsers load: what of a folder is served, and when a client has it already."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.routes.static_files import StaticFile, StaticFolder, is_current


def test_only_files_of_known_types_are_served(tmp_path: Path) -> None:
    """A folder's other files, its folders and their files have no URL."""
    for name in ("page.html", "code.js", "code.d.ts", "code.ts", "style.css", "secret.pem", "js"):
        (tmp_path / name).write_text(name)
    (tmp_path / "folder.js").mkdir()
    (tmp_path / "folder.js" / "inner.js").write_text("inner")
    names = StaticFolder(tmp_path, {}).names
    assert names == {"page.html", "code.js", "code.d.ts", "style.css"}


def test_the_etag_follows_the_content() -> None:
    """The same bytes have the same tag in every process; other bytes another."""
    tag = StaticFile(b"one", "text/plain").etag
    assert tag == StaticFile(b"one", "text/html").etag
    assert tag != StaticFile(b"two", "text/plain").etag
    assert tag == '"7692c3ad3540bb803c020b3aee66cd88"'


@pytest.mark.parametrize(
    ("header", "current"),
    [
        (None, False),
        ("", False),
        ('"a"', True),
        ('W/"a"', True),
        ('"b", W/"a"', True),
        ("*", True),
        ('"b"', False),
        ('"a', False),
        ("a", False),
    ],
)
def test_if_none_match_is_compared_by_tag(header: str | None, current: bool) -> None:
    """RFC 9110 §13.1.2: a list of tags, weak ones too; `*` is any version."""
    assert is_current(header, '"a"') is current
