"""What the head of a request may say of its framing, beyond what the parser refuses. Pure.

llhttp refuses a length beside a transfer coding, a repeated length, bare line ends and folded
lines. This module refuses what llhttp accepts and two servers could read differently: they must
not disagree on where the next request begins (RFC 9112 §11.2).
"""

from __future__ import annotations

from collections.abc import Iterable

from service.http.api_errors import malformed_request

Headers = Iterable[tuple[bytes, bytes]]

_CHECKED = frozenset({b"host", b"content-length", b"transfer-encoding", b"expect"})


def check_head(
    headers: Headers, *, method: str, version: str, upgrades: bool, authority: bytes | None
) -> bool:
    """Check a whole head; return whether its client waits for `100 Continue`.

    `headers` have their names in lower case. `upgrades` is true when the parser takes what
    follows the head for another protocol. `authority` is the one of an absolute target.

    Raises:
        ApiError: 400, and the connection is closed.
    """
    hosts: list[bytes] = []
    has_body = expects_continue = False
    for name, value in headers:
        if name not in _CHECKED:
            continue
        if name == b"host":
            hosts.append(value)
        elif name == b"content-length":
            has_body = has_body or value.strip(b"0") != b""
        elif name == b"transfer-encoding":
            has_body = True
            # RFC 9112 §6.1: an unknown coding cannot be framed, and HTTP/1.0 has no codings.
            if value.lower() != b"chunked" or version != "1.1":
                raise malformed_request("The transfer coding is not supported")
        elif value.lower() == b"100-continue":
            expects_continue = True
    if version not in ("1.0", "1.1"):
        raise malformed_request("The version of HTTP is not supported")
    if len(hosts) > 1 or (version == "1.1" and not hosts):
        raise malformed_request("A request names one Host")
    if authority is not None and [authority.lower()] != [host.lower() for host in hosts]:
        raise malformed_request("The target names another host than Host does")
    if method == "CONNECT":
        raise malformed_request("This is not a proxy")
    if upgrades and has_body:
        # The parser skips such a body: its bytes would be read as the next request.
        raise malformed_request("A request to upgrade has no body")
    return expects_continue
