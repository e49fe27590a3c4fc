"""Who the caller is: signed requests and tokens, as docs/protocol.md §3 says. Pure.

No framework, no I/O, no clock of its own, no membership: whether the caller may enter a project
is looked up elsewhere. What fails here is 401 and nothing else; there is no anonymous caller.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Final, Literal, get_args
from urllib.parse import parse_qsl

import jwt
import msgspec

from service.http.api_errors import AuthenticationError, AuthenticationFailure
from streams.model.errors import InvalidInput
from streams.model.ids import check_project_id, is_user_id

Scope = Literal["read", "write", "worker"]
SCOPES: Final[frozenset[Scope]] = frozenset(get_args(Scope))

AUDIENCE: Final = "seqstream"
COOKIE: Final = "__Host-seqstream"
PLAIN_COOKIE: Final = "seqstream_token"
"""The cookie where a browser keeps no `__Host-` cookie, and of pages that set it themselves."""
USER_HEADER: Final = "X-Seqstream-User"
TIMESTAMP_HEADER: Final = "X-Seqstream-Timestamp"
SIGNATURE_HEADER: Final = "X-Seqstream-Signature"
SCOPE_HEADER: Final = "X-Seqstream-Scope"
SIGNED_DEFAULT: Final[frozenset[Scope]] = frozenset[Scope]({"read", "write"})
"""What a signed request without the scope header may do. A worker has to say that it is one."""

MAX_SKEW_S: Final = 300
MAX_TOKEN_BYTES: Final = 8 * 1024
_CACHED_TOKENS: Final = 10_000
# The last second of the year 9999: what a date can hold, so `expiresAt` can always be written.
_MAX_EXPIRY_S: Final = 253_402_300_799

_TIMESTAMP = re.compile(r"[0-9]{1,12}")
_SIGNATURE = re.compile(r"v2=([0-9a-f]{64})")
_METHOD = re.compile(r"[A-Z]+")
_BEARER = re.compile(r"bearer +(.*)", re.IGNORECASE)


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """A known user, and what the request or token allows it.

    `projects` is None when it is limited to none; `expires_at_s` (unix time) is None when nothing
    expires. Membership still decides whether a project may be entered.
    """

    user_id: str
    scopes: frozenset[Scope]
    projects: frozenset[str] | None
    expires_at_s: float | None
    method: Literal["signature", "token"]

    def has_scope(self, scope: Scope) -> bool:
        """Tell whether the caller may do what needs this scope."""
        return scope in self.scopes

    def is_limited_from(self, project_id: str) -> bool:
        """Tell whether the token's list of projects leaves this one out."""
        return self.projects is not None and project_id not in self.projects


class SignedCredentials(msgspec.Struct, frozen=True):
    """The headers of a signed request, not verified yet; `scope` is None without that header."""

    user_id: str
    timestamp: str
    signature: str
    scope: str | None


class TokenCredentials(msgspec.Struct, frozen=True):
    """A token, not verified yet; `from_cookie`: the browser added it by itself."""

    token: str
    from_cookie: bool = False


def read_credentials(
    headers: Iterable[tuple[bytes, bytes]], query: bytes, *, query_token: bool
) -> SignedCredentials | TokenCredentials:
    """Find what the request says about its caller; nothing is verified.

    `headers` are those of ASGI (names in lower case), `query` the raw query string; `query_token`
    is true on the stream endpoint alone. What was put there for this request goes before what the
    browser adds by itself: signature, `Authorization: Bearer`, `?token=`, cookie. The first one
    found is used, and a bad one is not replaced by the next.

    Raises:
        AuthenticationError: `missing`, or `ambiguous` when a header, parameter or cookie is there
            twice: two readers could take a different one for the truth.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in _CREDENTIAL_HEADERS:
            if name in found:
                raise AuthenticationError("ambiguous")
            found[name] = value
    if not found.keys().isdisjoint(_SIGNED_HEADERS):
        # The scope header alone is half a signature too: a proxy that narrows what its user may do
        # must not have that dropped.
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
    # Any page of a neighbouring host can set the second; the first is the service's own.
    for cookie in (COOKIE, PLAIN_COOKIE):
        if (token := _only(_cookie_tokens(found.get(b"cookie", b""), cookie))) is not None:
            return TokenCredentials(token, from_cookie=True)
    raise AuthenticationError("missing")


def check_before_body(credentials: SignedCredentials, now_s: float) -> None:
    """Check what does not depend on the body: only then is it worth reading.

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
    `scope` are the headers' text. The same request verifies again until its time has passed: what
    must not happen twice carries a `client_msg_id`.

    Raises:
        AuthenticationError: `bad_signature`, `bad_user_id`, `bad_scope`, or `clock_skew` when the
            clocks differ by more than 300 s (told only to who holds a secret).
    """
    given = _SIGNATURE.fullmatch(signature)
    if given is None or not _TIMESTAMP.fullmatch(timestamp) or not _METHOD.fullmatch(method):
        raise AuthenticationError("bad_signature")
    if not is_user_id(user_id):
        raise AuthenticationError("bad_user_id")
    scopes = SIGNED_DEFAULT if scope is None else parse_scopes(scope)
    if scopes is None:
        raise AuthenticationError("bad_scope")
    # No field that was checked above can hold a line feed, and no HTTP parser lets one into the
    # target: one signed text has one reading.
    signed = _signed_text(timestamp, method, raw_target, user_id, scope or "", body)
    # Every secret is tried, so that the time taken does not tell which one matched.
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


def parse_scopes(text: str) -> frozenset[Scope] | None:
    """Return the scopes of a space-separated list; None when one is unknown or there is none."""
    named = set(text.split(" "))
    return frozenset(scope for scope in SCOPES if scope in named) if named <= SCOPES else None


class TokenVerifier:
    """Verifies tokens and remembers the last 10,000 good ones by their hash."""

    def __init__(self, secrets: Sequence[str], clock: Callable[[], float]) -> None:
        """Take the secrets (any of them verifies) and a clock of unix seconds."""
        self._secrets = tuple(secrets)
        self._clock = clock
        self._verified: OrderedDict[bytes, Caller] = OrderedDict()

    def verify(self, token: str) -> Caller:
        """Return the token's caller. Its expiry is compared with the clock at every call.

        Raises:
            AuthenticationError: `bad_token`, `expired_token`, or `early_token` before its `nbf`.
        """
        # Before anything is hashed or decoded: the work for a stranger is bounded.
        if len(token) > MAX_TOKEN_BYTES or not token.isascii():
            raise AuthenticationError("bad_token")
        # A hash, not the token: 10,000 tokens of 8 KiB would be 80 MB.
        key = hashlib.sha256(token.encode()).digest()
        caller = self._verified.get(key)
        if caller is None:
            caller = self._decode(token)
            self._verified[key] = caller
            if len(self._verified) > _CACHED_TOKENS:
                self._verified.popitem(last=False)
        else:
            self._verified.move_to_end(key)
        if caller.expires_at_s is not None and self._clock() >= caller.expires_at_s:
            del self._verified[key]
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


class _Claims(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    # `aud` as a list is not accepted: a token is for this service or it is not.
    sub: str
    aud: str
    exp: int | float
    nbf: int | float | None = None
    scope: str = "read"
    projects: tuple[str, ...] | None = None


# The layer below claims: the claims are checked here, against the clock that was handed in.
_JWS = jwt.PyJWS(algorithms=["HS256"])

_SIGNED_HEADERS = tuple(
    name.lower().encode()
    for name in (USER_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER, SCOPE_HEADER)
)
_SCOPE_HEADER = _SIGNED_HEADERS[3]
_CREDENTIAL_HEADERS = frozenset((*_SIGNED_HEADERS, b"authorization", b"cookie"))


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


def _is_project_id(value: str) -> bool:
    try:
        check_project_id(value)
    except InvalidInput:
        return False
    return True
