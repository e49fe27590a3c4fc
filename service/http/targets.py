"""Which request targets are served: only canonical ones (`docs/protocol.md` §4). Pure.

Proxies have rules for paths, and each normalises paths in its own way. A path with two spellings
can pass a rule that was written for the other spelling, so here every resource has one.
"""

from __future__ import annotations

import re

# Percent-encoded: a slash, or a character that needs no encoding (RFC 3986 §2.3).
_NEEDLESS = re.compile(rb"%(?:2[DEF]|3[0-9]|4[1-9A-F]|5[0-9AF]|6[1-9A-F]|7[0-9AE])", re.IGNORECASE)
_INCOMPLETE = re.compile(rb"%(?![0-9A-Fa-f]{2})")
_DOTS = re.compile(rb"/\.\.?(?:/|\Z)")
_PLAIN = re.compile(rb"(?:/[A-Za-z0-9_-]+)+/?")
_ENCODED = re.compile(rb"%([0-9A-Fa-f]{2})")
_ABSOLUTE = re.compile(rb"https?://([^/?#@]+)(/[^#]*)", re.IGNORECASE)


def is_canonical(raw_path: bytes) -> bool:
    """Tell whether a path, as it was sent, is the one spelling of its resource."""
    if _PLAIN.fullmatch(raw_path):
        return True
    if b"//" in raw_path or b"\\" in raw_path or _DOTS.search(raw_path):
        return False
    if b"%" not in raw_path:
        return True
    if _INCOMPLETE.search(raw_path) or _NEEDLESS.search(raw_path):
        return False
    try:
        # Decoding replaces bytes that are not UTF-8, so different paths would become one.
        _ENCODED.sub(lambda match: bytes([int(match[1], 16)]), raw_path).decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def split_target(target: bytes) -> tuple[bytes, bytes, bytes | None] | None:
    """Return a target's path, query and authority; None if its form is not served.

    Served are the origin form, which has no authority, and the absolute form. Neither may hold a
    fragment (RFC 9112 §3.2): a signature and the router would see different targets.
    """
    authority = None
    if not target.startswith(b"/"):
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None:
            return None
        authority, target = absolute[1], absolute[2]
    if b"#" in target:
        return None
    path, _, query = target.partition(b"?")
    return path, query, authority
