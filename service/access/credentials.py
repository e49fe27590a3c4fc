"""The credentials in a request's headers, cookies and query, not verified yet. Pure.

`signatures.py` and `tokens.py` verify them. There is no anonymous caller: a request without
credentials is a 401 (docs/protocol.md §3).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final
from urllib.parse import parse_qsl

import msgspec

from service.http.api_errors import AuthenticationError, AuthenticationFailure

COOKIE: Final = "__Host-seqstream"
PLAIN_COOKIE: Final = "seqstream_token"
"""For plain http, where browsers refuse `__Host-` cookies, and for pages that set it themselves."""
USER_HEADER: Final = "X-Seqstream-User"
TIMESTAMP_HEADER: Final = "X-Seqstream-Timestamp"
SIGNATURE_HEADER: Final = "X-Seqstream-Signature"
SCOPE_HEADER: Final = "X-Seqstream-Scope"
_BEARER = re.compile(r"bearer +(.*)", re.IGNORECASE)


class SignedCredentials(msgspec.Struct, frozen=True):
    """The headers of a signed request, not verified yet; `scope` is None without that header."""

    user_id: str
    timestamp: str
    signature: str
    scope: str | None


class TokenCredentials(msgspec.Struct, frozen=True):
    """A token, not verified yet; `from_cookie`: the browser added it without the page asking."""

    token: str
    from_cookie: bool = False


def read_credentials(
    headers: Iterable[tuple[bytes, bytes]], query: bytes, *, query_token: bool
) -> SignedCredentials | TokenCredentials:
    """Return the credentials of a request, not verified.

    `headers` are those of ASGI (names in lower case), `query` the raw query string; `query_token`
    is true on the stream endpoint alone. The order is signature, `Authorization: Bearer`,
    `?token=`, cookie: explicit credentials win over the cookie, which a browser adds by itself.
    The first one found is used, and a bad one is not replaced by the next.

    Raises:
        AuthenticationError: `missing`, or `ambiguous` when a header, parameter or cookie is there
            twice: a proxy and this service could each use a different one.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _CREDENTIAL_HEADERS:
            if name in found:
                raise AuthenticationError("ambiguous")
            found[name] = value
    if not found.keys().isdisjoint(_SIGNED_HEADERS):
        # A scope header alone counts as an incomplete signature: ignoring it would drop the limits
        # that a proxy sets for its user.
        user_id, timestamp, signature = [
            _text(found.get(name), "bad_signature") for name in _SIGNED_HEADERS[:3]
        ]
        scope = found.get(_SCOPE_HEADER)
        return SignedCredentials(
            user_id, timestamp, signature, None if scope is None else _text(scope, "bad_signature")
        )
    if bearer := _BEARER.fullmatch(found.get(b"authorization", b"").decode("latin-1").strip()):
        return TokenCredentials(bearer[1])
    if query_token and (token := _only(_query_tokens(query))) is not None:
        return TokenCredentials(token)
    # Another host of the domain can set the second cookie, but not the first.
    for cookie in (COOKIE, PLAIN_COOKIE):
        if (token := _only(_cookie_tokens(found.get(b"cookie", b""), cookie))) is not None:
            return TokenCredentials(token, from_cookie=True)
    raise AuthenticationError("missing")


_SIGNED_HEADERS = tuple(
    name.lower().encode()
    for name in (USER_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER, SCOPE_HEADER)
)
_SCOPE_HEADER = _SIGNED_HEADERS[3]
_CREDENTIAL_HEADERS = frozenset((*_SIGNED_HEADERS, b"authorization", b"cookie"))


def _text(value: bytes | None, reason: AuthenticationFailure) -> str:
    if value is None:
        raise AuthenticationError(reason)
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        raise AuthenticationError(reason) from None


def _only(tokens: Sequence[str]) -> str | None:
    if len(tokens) > 1:
        raise AuthenticationError("ambiguous")
    return tokens[0] if tokens else None


def _query_tokens(query: bytes) -> list[str]:
    pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True)
    return [value for name, value in pairs if name == "token"]


def _cookie_tokens(header: bytes, cookie: str) -> list[str]:
    tokens = []
    for item in header.decode("latin-1").split(";"):
        name, separator, value = item.partition("=")
        if separator and name.strip() == cookie:
            tokens.append(value.strip().strip('"'))
    return tokens
