"""Signatures and tokens of docs/protocol.md §3, written from the protocol alone.

The service's own code is not used here: tests would repeat its mistakes.
"""

from __future__ import annotations

import hashlib
import hmac
import time

import jwt

HMAC_SECRET = "test-only-hmac-secret-0123456789abcdef"
TOKEN_SECRET = "test-only-token-secret-0123456789abcdef"


def signed_headers(
    method: str,
    target: str,
    user_id: str,
    body: bytes = b"",
    *,
    secret: str = HMAC_SECRET,
    timestamp_s: int | None = None,
    scope: str | None = None,
) -> dict[str, str]:
    """Return the headers of a signed request; `target` is the path with its query, as sent.

    With `scope` they include the scope header, with any value.
    """
    timestamp = str(int(time.time()) if timestamp_s is None else timestamp_s)
    digest = hashlib.sha256(body).hexdigest()
    signed = "\n".join(["v2", timestamp, method, target, user_id, scope or "", digest])
    signature = hmac.new(secret.encode(), signed.encode(), hashlib.sha256).hexdigest()
    headers = {
        "X-Seqstream-User": user_id,
        "X-Seqstream-Timestamp": timestamp,
        "X-Seqstream-Signature": f"v2={signature}",
    }
    return headers if scope is None else {**headers, "X-Seqstream-Scope": scope}


def token(
    user_id: str,
    *,
    secret: str = TOKEN_SECRET,
    ttl_s: float = 3600.0,
    projects: list[str] | None = None,
    scope: str | None = None,
) -> str:
    """Mint a stream token as a backend that has the secret would."""
    claims: dict[str, object] = {
        "sub": user_id,
        "aud": "seqstream",
        "exp": int(time.time() + ttl_s),
    }
    if projects is not None:
        claims["projects"] = projects
    if scope is not None:
        claims["scope"] = scope
    return jwt.encode(claims, secret, algorithm="HS256")
