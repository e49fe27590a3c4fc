"""Which pages may write with the cookie, by the `Origin` of a browser's request. Pure.

A browser adds the cookie by itself, also to requests of another site's page; `Origin` names that
site. CORS headers are in `http/cors.py`; nothing here knows the caller.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Iterable

Headers = Iterable[tuple[bytes, bytes]]

_READS = frozenset({"GET", "HEAD", "OPTIONS"})
_DEFAULT_PORTS = {"http": ":80", "https": ":443"}


def may_use_cookie(
    method: str,
    headers: Headers,
    scheme: str,
    allowed_origins: Collection[str],
) -> bool:
    """Tell whether a request may be authenticated by a cookie.

    A read may. A write needs exactly one `Origin`: the service itself as the request's `Host`
    names it, or one of `allowed_origins`. `scheme` is that of the connection here: behind a proxy
    that ends TLS it is `http`, so a page of the same host over `https` is the service's in any
    case, one over `http` only where the connection is `http` too.
    """
    if method in _READS:
        return True
    origin = _only(headers, b"origin")
    if origin is None:
        return False
    if origin in allowed_origins:
        return True
    host = _only(headers, b"host")
    origin_scheme, separator, origin_host = origin.partition("://")
    return (
        bool(host and separator)
        and origin_scheme in ("https", scheme)
        and _without_port(origin_host, origin_scheme) == _without_port(host or "", origin_scheme)
    )


def is_plain_loopback(headers: Headers, scheme: str) -> bool:
    """Tell whether a browser asked this machine over plain http: it keeps no `__Host-` cookie."""
    if scheme != "http" or (_only(headers, b"origin") or "").startswith("https:"):
        return False
    host = (_only(headers, b"host") or "").lower()
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name.removeprefix("[").removesuffix("]")).is_loopback
    except ValueError:
        return False


def _only(headers: Headers, name: bytes) -> str | None:
    values = [value for each, value in headers if each == name]
    return values[0].decode("latin-1") if len(values) == 1 else None


def _without_port(host: str, scheme: str) -> str:
    """The host and port as browsers write them: in lower case, without the scheme's own port."""
    return host.lower().removesuffix(_DEFAULT_PORTS.get(scheme, "\0"))
