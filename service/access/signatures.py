"""Signed requests: the HMAC over a request, made and verified (docs/protocol.md §3). Pure.

The caller passes the clock in. Finding the headers in a request is in `credentials.py`. Every
failure here is a 401.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Collection, Sequence
from typing import Final

from service.access.credentials import (
    SCOPE_HEADER,
    SIGNATURE_HEADER,
    TIMESTAMP_HEADER,
    USER_HEADER,
    SignedCredentials,
)
from service.access.identity import Caller, Scope, parse_scopes
from service.http.api_errors import AuthenticationError
from streams.model.ids import is_user_id

SIGNED_DEFAULT: Final[frozenset[Scope]] = frozenset[Scope]({"read", "write"})
"""The scopes of a signed request without the scope header; `worker` must be named."""
MAX_SKEW_S: Final = 300

_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_SIGNATURE = re.compile(r"v2=([0-9a-f]{64})")
_METHOD = re.compile(r"[A-Z]+")


def check_before_body(credentials: SignedCredentials, now_s: float) -> None:
    """Check what does not depend on the body, before the body is read.

    Raises:
        AuthenticationError: `bad_signature`, `bad_user_id` or `clock_skew`.
    """
    if not _TIMESTAMP.fullmatch(credentials.timestamp):
        raise AuthenticationError("bad_signature")
    if not is_user_id(credentials.user_id):
        raise AuthenticationError("bad_user_id")
    if abs(now_s - int(credentials.timestamp)) > MAX_SKEW_S:
        raise AuthenticationError("clock_skew")


def verify_signature(
    secrets: Sequence[str],
    *,
    now_s: float,
    method: str,
    raw_target: bytes,
    user_id: str,
    timestamp: str,
    signature: str,
    scope: str | None,
    body: bytes,
) -> Caller:
    """Return the caller of a signed request. Any of the secrets verifies.

    `raw_target` is the path with its query string exactly as sent, `timestamp`, `signature` and
    `scope` are the headers' text. A repeated request verifies again until its timestamp is too old:
    posts that must not happen twice carry a `client_msg_id`.

    Raises:
        AuthenticationError: `bad_signature`, `bad_user_id`, `bad_scope`, or `clock_skew` when the
            clocks differ by more than 300 s (reported only to holders of a secret).
    """
    given = _SIGNATURE.fullmatch(signature)
    if given is None or not _TIMESTAMP.fullmatch(timestamp) or not _METHOD.fullmatch(method):
        raise AuthenticationError("bad_signature")
    if not is_user_id(user_id):
        raise AuthenticationError("bad_user_id")
    scopes = SIGNED_DEFAULT if scope is None else parse_scopes(scope)
    if scopes is None:
        raise AuthenticationError("bad_scope")
    # No field checked above can hold a line feed, and HTTP parsers refuse one in the target, so a
    # signed text has exactly one reading.
    signed = _signed_text(timestamp, method, raw_target, user_id, scope or "", body)
    # Every secret is tried, so that timing does not reveal which one matched.
    matches = [hmac.compare_digest(_hex_hmac(secret, signed), given[1]) for secret in secrets]
    if not any(matches):
        raise AuthenticationError("bad_signature")
    if abs(now_s - int(timestamp)) > MAX_SKEW_S:
        raise AuthenticationError("clock_skew")
    return Caller(
        user_id=user_id, scopes=scopes, projects=None, expires_at_s=None, method="signature"
    )


def sign_request(
    secret: str,
    *,
    now_s: float,
    method: str,
    raw_target: bytes,
    user_id: str,
    scopes: Collection[Scope] | None = None,
    body: bytes = b"",
) -> dict[str, str]:
    """Return the headers that sign a request, for clients and tests.

    `raw_target` is the path with its query string, with the percent-encoding that will be sent.
    A user id beyond ASCII goes into its header as UTF-8 bytes. Without `scopes` there is no scope
    header, and the request may read and write.
    """
    timestamp = str(int(now_s))
    scope = None if scopes is None else " ".join(sorted(scopes))
    signed = _signed_text(timestamp, method.upper(), raw_target, user_id, scope or "", body)
    headers = {
        USER_HEADER: user_id,
        TIMESTAMP_HEADER: timestamp,
        SIGNATURE_HEADER: f"v2={_hex_hmac(secret, signed)}",
    }
    return headers if scope is None else {**headers, SCOPE_HEADER: scope}


def _signed_text(
    timestamp: str, method: str, raw_target: bytes, user_id: str, scope: str, body: bytes
) -> bytes:
    return b"v2\n%s\n%s\n%s\n%s\n%s\n%s" % (
        timestamp.encode(),
        method.encode(),
        raw_target,
        user_id.encode(),
        scope.encode(),
        hashlib.sha256(body).hexdigest().encode(),
    )


def _hex_hmac(secret: str, text: bytes) -> str:
    return hmac.digest(secret.encode(), text, "sha256").hex()
