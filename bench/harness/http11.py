"""HTTP/1.1 requests as bytes: post templates, request signing, stream requests.

Pure: no sockets, and no clock but what the caller passes in.
"""

from __future__ import annotations

import hashlib
import hmac

import msgspec

TEXT = "%TEXT%"
NUMBER = "%NUMBER%"
CHANNEL = "%CHANNEL%"


class Signer(msgspec.Struct, frozen=True):
    """The user and the secret of signed requests."""

    user: str
    secret: str


class PostTemplate(msgspec.Struct, frozen=True):
    """One system's post request: path and body with places for text, number and channel."""

    path: str
    body: str
    headers: tuple[tuple[str, str], ...] = ()
    content_type: str = "application/json"
    signer: Signer | None = None


def sign(signer: Signer, method: str, path: str, body: bytes, unix_s: int) -> bytes:
    """Return the three signature headers, each with its line end."""
    digest = hashlib.sha256(body).hexdigest()
    text = f"v2\n{unix_s}\n{method}\n{path}\n{signer.user}\n\n{digest}"
    signature = hmac.digest(signer.secret.encode(), text.encode(), "sha256").hex()
    return (
        f"X-Seqstream-User: {signer.user}\r\n"
        f"X-Seqstream-Timestamp: {unix_s}\r\n"
        f"X-Seqstream-Signature: v2={signature}\r\n"
    ).encode()


class PostBuilder:
    """Fills one template for one host; constant parts are rendered once."""

    def __init__(self, template: PostTemplate, host: str) -> None:
        self._template = template
        self._head = "".join(
            f"{name}: {value}\r\n"
            for name, value in (
                ("Host", host),
                ("Content-Type", template.content_type),
                *template.headers,
            )
        ).encode()
        self._lines: dict[str, tuple[str, bytes]] = {}

    def build(self, channel: str, number: int, text: str, unix_s: int) -> bytes:
        """Return the request that posts `text` to `channel`."""
        template = self._template
        path, line = self._line(channel)
        body = (
            template.body.replace(TEXT, text)
            .replace(NUMBER, str(number))
            .replace(CHANNEL, channel)
            .encode()
        )
        signature = sign(template.signer, "POST", path, body, unix_s) if template.signer else b""
        return b"%b%b%bContent-Length: %d\r\n\r\n%b" % (
            line, self._head, signature, len(body), body,
        )  # fmt: skip

    def _line(self, channel: str) -> tuple[str, bytes]:
        found = self._lines.get(channel)
        if found is None:
            path = self._template.path.replace(CHANNEL, channel)
            found = self._lines[channel] = (path, f"POST {path} HTTP/1.1\r\n".encode())
        return found


def stream_request(host: str, path: str, headers: tuple[tuple[str, str], ...]) -> bytes:
    """Return the request that opens an event stream, as an EventSource would send it."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Accept: text/event-stream"]
    lines += ["Cache-Control: no-cache"]
    lines += [f"{name}: {value}" for name, value in headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
