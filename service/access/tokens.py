"""Tokens: JWTs signed with HS256, minted and verified (docs/protocol.md §3).

The caller passes the clock in. Finding a token in a request is in `credentials.py`. Every failed
verification is a 401.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Sequence
from typing import Final

import jwt
import msgspec

from service.access.identity import SCOPES, Caller, Scope, parse_scopes
from service.http.api_errors import AuthenticationError
from streams.model.errors import InvalidInput
from streams.model.ids import check_project_id, is_user_id
from streams.model.lru_map import LruMap

AUDIENCE: Final = "seqstream"
MAX_TOKEN_BYTES: Final = 8 * 1024
_CACHED_TOKENS: Final = 10_000
# The last second of the year 9999, the latest that `expiresAt` can be written as.
_MAX_EXPIRY_S: Final = 253_402_300_799


class _Claims(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    # `aud` as a list is refused: a token is meant for this service alone.
    sub: str
    aud: str
    exp: int | float
    nbf: int | float | None = None
    scope: str = "read"
    projects: tuple[str, ...] | None = None


# PyJWS does not look at claims: they are checked here, against the clock that was passed in.
_JWS = jwt.PyJWS(algorithms=["HS256"])


class TokenVerifier:
    """Verifies tokens and remembers the last 10,000 good ones by their hash."""

    def __init__(self, secrets: Sequence[str], clock: Callable[[], float]) -> None:
        """Take the secrets (any of them verifies) and a clock of unix seconds."""
        self._secrets = tuple(secrets)
        self._clock = clock
        self._verified = LruMap[bytes, Caller](_CACHED_TOKENS)

    def verify(self, token: str) -> Caller:
        """Return the token's caller. Its expiry is compared with the clock at every call.

        Raises:
            AuthenticationError: `bad_token`, `expired_token`, or `early_token` before its `nbf`.
        """
        # Checked before hashing and decoding, to bound the work for an unknown client.
        if len(token) > MAX_TOKEN_BYTES or not token.isascii():
            raise AuthenticationError("bad_token")
        # Keyed by hash: 10,000 tokens of 8 KiB would take 80 MB.
        key = hashlib.sha256(token.encode()).digest()
        caller = self._verified.get(key)
        if caller is None:
            caller = self._decode(token)
            self._verified.put(key, caller)
        if caller.expires_at_s is not None and self._clock() >= caller.expires_at_s:
            self._verified.pop(key)
            raise AuthenticationError("expired_token")
        return caller

    def _decode(self, token: str) -> Caller:
        try:
            claims = msgspec.json.decode(self._payload(token), type=_Claims)
        except msgspec.DecodeError:
            raise AuthenticationError("bad_token") from None
        scopes = parse_scopes(claims.scope)
        if (
            claims.aud != AUDIENCE
            or not is_user_id(claims.sub)
            or not 0 < claims.exp <= _MAX_EXPIRY_S
            or scopes is None
            or not all(_is_project_id(project) for project in claims.projects or ())
        ):
            raise AuthenticationError("bad_token")
        if claims.nbf is not None and self._clock() < claims.nbf:
            raise AuthenticationError("early_token")
        return Caller(
            user_id=claims.sub,
            scopes=scopes,
            projects=None if claims.projects is None else frozenset(claims.projects),
            expires_at_s=float(claims.exp),
            method="token",
        )

    def _payload(self, token: str) -> bytes:
        """Return the payload's bytes once a secret has verified them, as HS256 alone."""
        for secret in self._secrets:
            try:
                payload: bytes = _JWS.decode(token, secret, algorithms=["HS256"])
            except jwt.InvalidSignatureError:
                continue
            except jwt.PyJWTError:
                break
            return payload
        raise AuthenticationError("bad_token")


def mint_token(
    secret: str,
    *,
    user_id: str,
    expires_at_s: float,
    scopes: Collection[Scope] = frozenset[Scope]({"read"}),
    projects: Collection[str] | None = None,
) -> str:
    """Return a token that `TokenVerifier` accepts until `expires_at_s` (unix time).

    Raises:
        ValueError: a user id, scope, project id or time that no verifier would accept.
    """
    unknown = not scopes or not set(scopes) <= SCOPES
    if unknown or not is_user_id(user_id) or not 0 < expires_at_s <= _MAX_EXPIRY_S:
        raise ValueError("not a user id, scope or time that a token can carry")
    if not all(_is_project_id(project) for project in projects or ()):
        raise ValueError("not a project id")
    claims = _Claims(
        sub=user_id,
        aud=AUDIENCE,
        exp=int(expires_at_s),
        scope=" ".join(sorted(scopes)),
        projects=None if projects is None else tuple(sorted(projects)),
    )
    return _JWS.encode(msgspec.json.encode(claims), secret, algorithm="HS256")


def _is_project_id(value: str) -> bool:
    try:
        check_project_id(value)
    except InvalidInput:
        return False
    return True
