"""Which pages may write with the cookie, and where a `__Host-` cookie is kept: §3."""

from __future__ import annotations

import pytest

from service.access.origin import is_plain_loopback, may_use_cookie

ALLOWED = ("https://app.example", "http://localhost:3000")


def _allows(
    *headers: tuple[str, str],
    method: str = "POST",
    scheme: str = "http",
    host: str = "chat.example",
) -> bool:
    sent = [(name.encode(), value.encode()) for name, value in (("host", host), *headers)]
    return may_use_cookie(method, sent, scheme, ALLOWED)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS"])
def test_a_read_needs_no_origin(method: str) -> None:
    """§3: an EventSource of the service's own pages sends no `Origin`."""
    assert _allows(method=method)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "get", "QUERY"])
def test_anything_else_needs_one(method: str) -> None:
    """§3: requests that write need an `Origin`."""
    assert not _allows(method=method)
    assert _allows(("origin", "https://chat.example"), method=method)


@pytest.mark.parametrize(
    "host, scheme, origin",
    [
        ("chat.example", "https", "https://chat.example"),
        ("chat.example", "http", "https://chat.example"),
        ("chat.example", "http", "http://chat.example"),
        ("Chat.Example:443", "http", "https://chat.example"),
        ("chat.example", "http", "https://chat.example:443"),
        ("chat.example:80", "http", "http://chat.example"),
        ("127.0.0.1:8000", "http", "http://127.0.0.1:8000"),
        ("[::1]:8000", "http", "http://[::1]:8000"),
        ("other.example", "https", "https://app.example"),
        ("other.example", "https", "http://localhost:3000"),
    ],
)
def test_the_services_own_pages_and_the_listed_may_write(
    host: str, scheme: str, origin: str
) -> None:
    """§3: an `Origin` of the service itself or of `SEQSTREAM_CORS_ORIGINS`."""
    assert _allows(("origin", origin), host=host, scheme=scheme)


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "null",
        "https://",
        "chat.example",
        "https://evil.example",
        "https://chat.example.evil.example",
        "https://evilchat.example",
        "https://chat.example:8443",
        "https://chat.example@evil.example",
        "https://chat.example/",
        "ftp://chat.example",
        "https://app.example:8443",
        "http://app.example",
    ],
)
def test_another_page_may_not(origin: str) -> None:
    """§3: else 403."""
    assert not _allows(("origin", origin))


def test_a_plain_page_may_not_write_to_a_service_over_tls() -> None:
    """§3: who can alter plain http must not write through its pages."""
    assert not _allows(("origin", "http://chat.example"), scheme="https")


def test_a_header_that_stands_twice_says_nothing() -> None:
    """§3: two readers could take a different one for the truth."""
    own = ("origin", "https://chat.example")
    assert not _allows(own, own)
    assert not _allows(own, ("origin", "https://evil.example"))
    assert not _allows(own, ("host", "chat.example"))
    assert not may_use_cookie("POST", [(b"origin", b"https://chat.example")], "http", ALLOWED)
    assert not may_use_cookie("POST", [(b"origin", b"https://"), (b"host", b"")], "http", ALLOWED)


@pytest.mark.parametrize(
    "host", ["localhost", "LocalHost:8000", "127.0.0.1", "127.1.2.3:80", "[::1]", "[::1]:8000"]
)
def test_plain_http_to_loopback_keeps_no_host_cookie(host: str) -> None:
    """§3: on plain http to loopback the cookie has another name, and no `Secure`."""
    sent = [(b"host", host.encode())]
    assert is_plain_loopback(sent, "http")
    assert not is_plain_loopback(sent, "https")
    # A proxy on this machine that ends TLS and names itself as the host.
    assert not is_plain_loopback([*sent, (b"origin", b"https://chat.example")], "http")


@pytest.mark.parametrize(
    "host", ["", "chat.example", "localhost.evil.example", "128.0.0.1", "127.0.0.1.nip.io", "[::2]"]
)
def test_any_other_host_does(host: str) -> None:
    """§3: a proxy ends TLS for it."""
    assert not is_plain_loopback([(b"host", host.encode())], "http")
    assert not is_plain_loopback([], "http")
