"""`docs/protocol.md` §4: only canonical paths are served."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.http.targets import is_canonical, split_target


@pytest.mark.parametrize(
    "path",
    [
        b"/", b"/metrics", b"/v1/projects/p/chat/messages", b"/v1/projects/p/chat/messages/",
        b"/schema/openapi.json", b"/v1/projects/p/members/a%3Ab", b"/v1/projects/p/members/a:b@c",
        b"/v1/projects/p/members/%C3%A9", b"/v1/projects/p/members/%c3%a9", b"/a..b/.c/d.",
        b"/v1/projects/b%20d", b"/v1/projects/p/members/50%25",
    ],
)  # fmt: skip
def test_the_only_spelling_of_a_path_is_canonical(path: bytes) -> None:
    """§4: UTF-8 and reserved characters may be encoded, but for the slash."""
    assert is_canonical(path)


@pytest.mark.parametrize(
    "path",
    [
        b"//", b"//metrics", b"/v1//projects", b"/metrics//", b"/v1/projects/p%2Fchat",
        b"/v1/projects/p%2fchat", b"/%6Detrics", b"/%6detrics", b"/metric%73", b"/a%2Eb",
        b"/a%2D", b"/a%5F", b"/a%7e", b"/%31", b"/%41", b"/%5A", b"/%7a", b"/.", b"/..",
        b"/v1/./projects", b"/v1/../metrics", b"/metrics/..", b"/a%", b"/a%2", b"/a%zz", b"/%FF",
        b"/%C3", b"/%C0%AF", b"/a\\b",
    ],
)  # fmt: skip
def test_another_spelling_of_a_path_is_not_canonical(path: bytes) -> None:
    """§4: a path that a proxy and the service normalise differently passes the wrong rules."""
    assert not is_canonical(path)


@given(st.text(min_size=1).filter(lambda text: text not in (".", "..") and "/" not in text))
def test_a_segment_that_a_client_library_encodes_is_canonical(text: str) -> None:
    """§3: any user id can be in a path, encoded according to RFC 3986."""
    try:
        encoded = quote(text, safe="~")
    except UnicodeEncodeError:
        return
    assert is_canonical(b"/v1/projects/p/members/" + encoded.encode())


@given(st.binary(min_size=1, max_size=6))
def test_needless_escapes_are_found_at_every_position(part: bytes) -> None:
    """Escaping one more character of a canonical path makes it another spelling."""
    plain = bytes(byte for byte in part if chr(byte).isascii() and chr(byte).isalnum())
    for place in range(len(plain)):
        escaped = plain[:place] + b"%%%02X" % plain[place] + plain[place + 1 :]
        assert not is_canonical(b"/" + escaped)


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        (b"/a?b?c", (b"/a", b"b?c", None)),
        (b"/a", (b"/a", b"", None)),
        (b"http://h:1/a?b", (b"/a", b"b", b"h:1")),
        (b"HTTPS://h/a", (b"/a", b"", b"h")),
        (b"*", None), (b"h:1", None), (b"/a#b", None), (b"http://h", None),
        (b"http://u@h/a", None), (b"ftp://h/a", None), (b"http://h/a#b", None),
    ],
)  # fmt: skip
def test_a_target_is_split(target: bytes, parts: object) -> None:
    """RFC 9112 §3.2: the origin and the absolute form; neither has a fragment."""
    assert split_target(target) == parts
