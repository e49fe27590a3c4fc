"""Signed requests and tokens: docs/protocol.md §3."""

from __future__ import annotations

import base64
import hashlib
import hmac
import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access.credentials import SignedCredentials, TokenCredentials, read_credentials
from service.access.identity import Caller
from service.access.signatures import sign_request, verify_signature
from service.access.tokens import TokenVerifier, mint_token
from service.http.api_errors import AuthenticationError

NEW = "new-secret-new-secret-new-secret-new"
OLD = "old-secret-old-secret-old-secret-old"
FOREIGN = "foreign-secret-foreign-secret-foreign"
NOW = 1_700_000_000.0
TARGET = b"/v1/projects/p1/chat/messages?x=%C3%A9&y=1"
BODY = b'{"message":"hi"}'


class Clock:
    """A clock that moves when told to."""

    def __init__(self) -> None:
        self.now_s = NOW

    def __call__(self) -> float:
        return self.now_s


def signed(secret: str = NEW, **changed: Any) -> dict[str, Any]:
    """Return the arguments of `verify_signature` for a signed request, some of them changed."""
    headers = sign_request(
        secret, now_s=NOW, method="POST", raw_target=TARGET, user_id="alice", body=BODY
    )
    return {
        "now_s": NOW,
        "method": "POST",
        "raw_target": TARGET,
        "user_id": headers["X-Seqstream-User"],
        "timestamp": headers["X-Seqstream-Timestamp"],
        "signature": headers["X-Seqstream-Signature"],
        "scope": None,
        "body": BODY,
        **changed,
    }


def segment(value: object) -> str:
    raw = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def token_of(
    claims: object = None, *, header: object = None, secret: str = NEW, digest: str = "sha256"
) -> str:
    """Return a token made by hand, so that what no library would sign can be signed."""
    head = segment(header or {"alg": "HS256", "typ": "JWT"})
    text = f"{head}.{segment(claims if claims is not None else good_claims())}"
    signature = hmac.digest(secret.encode(), text.encode(), digest)
    return f"{text}.{segment(signature)}"


def good_claims(**changed: Any) -> dict[str, Any]:
    claims = {"sub": "alice", "aud": "seqstream", "exp": NOW + 60, **changed}
    return {name: value for name, value in claims.items() if value is not None}


def verifier(clock: Clock | None = None) -> TokenVerifier:
    return TokenVerifier([NEW, OLD], clock or Clock())


def reason_of(token: str) -> str:
    with pytest.raises(AuthenticationError) as caught:
        verifier().verify(token)
    return caught.value.reason


# Signed requests


def test_signature_is_the_documented_hmac() -> None:
    """§3: HMAC-SHA256 of seven lines: v2, timestamp, method, target, user, scope, body's hash."""
    text = (
        b"v2\n1700000000\nPOST\n/v1/projects/p1/chat/messages?x=%C3%A9&y=1\nalice\n\n"
        + hashlib.sha256(BODY).hexdigest().encode()
    )
    expected = hmac.new(NEW.encode(), text, hashlib.sha256).hexdigest()
    assert sign_request(
        NEW, now_s=NOW, method="post", raw_target=TARGET, user_id="alice", body=BODY
    ) == {
        "X-Seqstream-User": "alice",
        "X-Seqstream-Timestamp": "1700000000",
        "X-Seqstream-Signature": f"v2={expected}",
    }


def test_signed_scope_is_the_sixth_line_and_a_header() -> None:
    """§3: `X-Seqstream-Scope` is signed as it is sent."""
    text = (
        b"v2\n1700000000\nGET\n/\nalice\nread worker\n" + hashlib.sha256(b"").hexdigest().encode()
    )
    expected = hmac.new(NEW.encode(), text, hashlib.sha256).hexdigest()
    headers = sign_request(
        NEW, now_s=NOW, method="GET", raw_target=b"/", user_id="alice", scopes=["worker", "read"]
    )
    assert headers["X-Seqstream-Scope"] == "read worker"
    assert headers["X-Seqstream-Signature"] == f"v2={expected}"


def test_signed_caller_reads_and_writes_and_does_not_expire() -> None:
    """§3: without the scope header a signed request has `read write`, and is no worker."""
    assert verify_signature([NEW], **signed()) == Caller(
        user_id="alice",
        scopes=frozenset({"read", "write"}),
        projects=None,
        expires_at_s=None,
        method="signature",
    )


@pytest.mark.parametrize("secret", [NEW, OLD])
def test_any_secret_of_the_list_verifies_a_signature(secret: str) -> None:
    """§3: the list is newest first, any of them verifies."""
    assert verify_signature([NEW, OLD], **signed(secret)).user_id == "alice"


@pytest.mark.parametrize(
    "changed",
    [
        {"method": "PUT"},
        {"method": "post"},
        {"raw_target": TARGET + b"&z=1"},
        {"raw_target": b"/v1/projects/p1/chat/messages?x=\xc3\xa9&y=1"},
        {"raw_target": b"/v1/projects/p1/chat/messages"},
        {"user_id": "bob"},
        {"timestamp": "1700000001"},
        {"timestamp": "+1700000000"},
        {"timestamp": " 1700000000"},
        {"timestamp": "1700000000.0"},
        {"timestamp": "١٧٠٠٠٠٠٠٠٠"},
        {"timestamp": ""},
        {"body": BODY + b" "},
        {"body": b""},
        {"signature": ""},
        {"signature": "v2="},
        {"signature": "v2=" + "0" * 64},
        {"signature": "v3=" + "0" * 64},
        {"signature": "v2=" + "é" * 64},
        {"scope": "read"},
        {"scope": "read write"},
    ],
)
def test_changed_request_is_refused(changed: dict[str, Any]) -> None:
    """§3: the signature covers time, method, path with query, user, scope and body."""
    with pytest.raises(AuthenticationError) as caught:
        verify_signature([NEW, OLD], **signed(**changed))
    assert caught.value.reason == "bad_signature"


def test_signature_has_one_spelling() -> None:
    """§3: v2=<hex>, 64 lower-case digits."""
    right = signed()["signature"]
    for wrong in (right.upper(), f"{right}\n", f" {right}", right[:-1], right[3:]):
        with pytest.raises(AuthenticationError):
            verify_signature([NEW], **signed(signature=wrong))


def test_version_1_is_refused() -> None:
    """§3: v1 was ambiguous where an id has a colon: one made for `x:u1` was taken for `u1`'s."""
    text = b"v1:1700000000:POST:%s:alice:%s" % (TARGET, hashlib.sha256(BODY).hexdigest().encode())
    digest = hmac.new(NEW.encode(), text, hashlib.sha256).hexdigest()
    for version in ("v1", "v2"):
        with pytest.raises(AuthenticationError) as caught:
            verify_signature([NEW], **signed(signature=f"{version}={digest}"))
        assert caught.value.reason == "bad_signature"


@pytest.mark.parametrize(
    "scopes",
    [["read"], ["write"], ["worker"], ["admin"], ["read", "write", "worker"], ["read", "worker"]],
)
def test_signed_scope_is_the_callers(scopes: Any) -> None:
    """§3: a signed user has the scopes that the header names, and no other."""
    headers = sign_request(
        NEW, now_s=NOW, method="POST", raw_target=TARGET, user_id="alice", scopes=scopes, body=BODY
    )
    changed = {
        "signature": headers["X-Seqstream-Signature"],
        "scope": headers["X-Seqstream-Scope"],
    }
    assert verify_signature([NEW], **signed(**changed)).scopes == frozenset(scopes)


@pytest.mark.parametrize(
    "scope",
    ["", " ", "owner", "read owner", "READ", "read  write", " read", "read,write", "read\twrite",
     "read\nwrite", "réad"],
)  # fmt: skip
def test_signed_scope_that_is_not_known_is_refused(scope: str) -> None:
    """§3: out of `read`, `write`, `worker`, `admin`, separated by one space; empty is none."""
    of_body = hashlib.sha256(BODY).hexdigest()
    text = f"v2\n1700000000\nPOST\n{TARGET.decode()}\nalice\n{scope}\n{of_body}"
    digest = hmac.new(NEW.encode(), text.encode(), hashlib.sha256).hexdigest()
    with pytest.raises(AuthenticationError) as caught:
        verify_signature([NEW], **signed(signature=f"v2={digest}", scope=scope))
    assert caught.value.reason == "bad_scope"


# Short texts of what separates fields, now or in version 1, and of what stands in them.
_PIECES = ["a", ":", "\n", "read"]
_TEXTS = ["".join(pieces) for n in range(3) for pieces in itertools.product(_PIECES, repeat=n)]


def _accepted(signature: str, target: str, user_id: str, scope: str | None, body: bytes) -> bool:
    try:
        verify_signature(
            [NEW], now_s=NOW, method="GET", raw_target=target.encode(), user_id=user_id,
            timestamp=str(int(NOW)), signature=signature, scope=scope, body=body,
        )  # fmt: skip
    except AuthenticationError:
        return False
    return True


def test_one_signature_is_good_for_one_request() -> None:
    """§3: no field can hold a line feed, so no two requests are signed by the same bytes.

    Every short target, user, scope and body that holds separators: of those that share a
    signature, at most one is accepted.
    """
    signed_by: dict[str, list[tuple[str, str, str | None, bytes]]] = {}
    for target, user_id, scope, body in itertools.product(
        _TEXTS, _TEXTS, [None, *_TEXTS[:6]], [b"", b"a"]
    ):
        headers = sign_request(
            NEW, now_s=NOW, method="GET", raw_target=target.encode(), user_id=user_id,
            scopes=None if scope is None else [scope],  # type: ignore[list-item]
            body=body,
        )  # fmt: skip
        request = (target, user_id, scope, body)
        signed_by.setdefault(headers["X-Seqstream-Signature"], []).append(request)
    for signature, requests in signed_by.items():
        assert sum(_accepted(signature, *request) for request in requests) <= 1, requests


_FIELDS = st.tuples(
    st.text(":\n/a", max_size=8), st.text(":\n/a", max_size=8),
    st.none() | st.sampled_from(["read", "write", "read write", "worker", "", "\n"]),
    st.binary(max_size=2),
)  # fmt: skip


@given(_FIELDS, _FIELDS)
def test_signature_of_one_request_is_refused_for_another(
    one: tuple[str, str, str | None, bytes], other: tuple[str, str, str | None, bytes]
) -> None:
    """§3: the signature covers every field, wherever one of them begins and ends."""
    target, user_id, scope, body = one
    text = "\n".join(
        ["v2", str(int(NOW)), "GET", target, user_id, scope or "", hashlib.sha256(body).hexdigest()]
    )
    signature = f"v2={hmac.new(NEW.encode(), text.encode(), hashlib.sha256).hexdigest()}"
    assert not _accepted(signature, *other) or one == other


@pytest.mark.parametrize("secrets", [[], [FOREIGN]])
def test_signature_needs_a_known_secret(secrets: list[str]) -> None:
    """§3: without a secret that matches there is no caller."""
    with pytest.raises(AuthenticationError) as caught:
        verify_signature(secrets, **signed())
    assert caught.value.reason == "bad_signature"


@pytest.mark.parametrize(
    "skew_s, refused", [(-300, False), (300, False), (-301, True), (301, True)]
)
def test_clock_may_differ_by_300_seconds(skew_s: float, refused: bool) -> None:
    """§3: refused when the clock differs by more than 300 s."""
    if not refused:
        assert verify_signature([NEW], **signed(now_s=NOW + skew_s))
        return
    with pytest.raises(AuthenticationError) as caught:
        verify_signature([NEW], **signed(now_s=NOW + skew_s))
    assert caught.value.reason == "clock_skew"


def test_skew_is_told_only_to_who_holds_a_secret() -> None:
    """A stranger learns nothing of the clock; the metric counts real clients' skew."""
    with pytest.raises(AuthenticationError) as caught:
        verify_signature([FOREIGN], **signed(now_s=NOW + 999))
    assert caught.value.reason == "bad_signature"


@pytest.mark.parametrize(
    "user_id", ["", "a" * 129, "a b", "a\n", "a\x00", "a\x85b", "a\u2028", "\ud800"]
)
def test_impossible_user_id_is_refused(user_id: str) -> None:
    """§3: 1 to 128 characters, no control characters or white space."""
    with pytest.raises(AuthenticationError) as caught:
        verify_signature([NEW], **signed(user_id=user_id))
    assert caught.value.reason == "bad_user_id"


@given(
    user_id=st.text(st.characters(categories=["L", "N", "P"]), min_size=1, max_size=128),
    target=st.binary(max_size=200),
    body=st.binary(max_size=200),
)
def test_what_is_signed_verifies(user_id: str, target: bytes, body: bytes) -> None:
    """§3: for any user id, target and body."""
    headers = sign_request(
        NEW, now_s=NOW, method="GET", raw_target=target, user_id=user_id, body=body
    )
    caller = verify_signature(
        [OLD, NEW],
        now_s=NOW,
        method="GET",
        raw_target=target,
        user_id=user_id,
        timestamp=headers["X-Seqstream-Timestamp"],
        signature=headers["X-Seqstream-Signature"],
        scope=None,
        body=body,
    )
    assert caller.user_id == user_id


# Tokens


def test_token_gives_its_caller() -> None:
    """§3: sub, exp, scope and projects."""
    token = token_of(good_claims(scope="write read", projects=["p1", "p2"]))
    assert verifier().verify(token) == Caller(
        user_id="alice",
        scopes=frozenset({"read", "write"}),
        projects=frozenset({"p1", "p2"}),
        expires_at_s=NOW + 60,
        method="token",
    )


def test_token_without_scope_reads() -> None:
    """§3: without a scope it is `read`; without a list it is limited to no project."""
    caller = verifier().verify(token_of())
    assert (caller.scopes, caller.projects) == (frozenset({"read"}), None)


@pytest.mark.parametrize("secret", [NEW, OLD])
def test_any_secret_of_the_list_verifies_a_token(secret: str) -> None:
    """§3: same list form as for signatures."""
    assert verifier().verify(token_of(secret=secret)).user_id == "alice"


def test_minted_token_verifies() -> None:
    """§3: what `stream-tokens` mints is what the stream accepts."""
    token = mint_token(
        OLD, user_id="alice", expires_at_s=NOW + 5.9, scopes=["write", "read"], projects=["p1"]
    )
    assert verifier().verify(token) == Caller(
        user_id="alice",
        scopes=frozenset({"read", "write"}),
        projects=frozenset({"p1"}),
        expires_at_s=NOW + 5,
        method="token",
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"user_id": "a b"},
        {"scopes": []},
        {"scopes": ["owner"]},
        {"projects": ["p/1"]},
        {"expires_at_s": 0},
        {"expires_at_s": float("nan")},
        {"expires_at_s": float("inf")},
    ],
)
def test_minting_refuses_what_no_verifier_accepts(changed: dict[str, Any]) -> None:
    """A token that would be refused is not handed out."""
    with pytest.raises(ValueError, match="not a"):
        mint_token(NEW, **{"user_id": "alice", "expires_at_s": NOW + 60, **changed})


@pytest.mark.parametrize(
    "changed",
    [
        {"exp": None},
        {"exp": str(int(NOW + 60))},
        {"exp": True},
        {"exp": -1},
        {"exp": 0},
        {"exp": 10**300},
        {"exp": [NOW + 60]},
        {"aud": None},
        {"aud": "another"},
        {"aud": ["seqstream"]},
        {"aud": ["seqstream", "another"]},
        {"sub": None},
        {"sub": 7},
        {"sub": ""},
        {"sub": "a b"},
        {"sub": "a\n"},
        {"sub": "\ud800"},
        {"sub": "a" * 129},
        {"scope": ""},
        {"scope": "owner"},
        {"scope": "read owner"},
        {"scope": "read  write"},
        {"scope": ["read"]},
        {"projects": "p1"},
        {"projects": ["p/1"]},
        {"projects": [7]},
        {"nbf": "soon"},
    ],
)
def test_token_with_a_bad_claim_is_refused(changed: dict[str, Any]) -> None:
    """§3: sub, exp and aud are required, and each claim has one form."""
    claims = good_claims(**changed)
    assert reason_of(token_of(claims)) == "bad_token"


@pytest.mark.parametrize("exp", ["NaN", "Infinity", "1e999"])
def test_expiry_that_is_no_number_is_refused(exp: str) -> None:
    """§3: exp is required; a value that no clock reaches is no expiry."""
    raw = f'{{"sub":"alice","aud":"seqstream","exp":{exp}}}'.encode()
    assert reason_of(token_of(raw)) == "bad_token"


def test_empty_list_of_projects_allows_none() -> None:
    """§3: `projects` limits, an empty list to nothing."""
    caller = verifier().verify(token_of(good_claims(projects=[])))
    assert caller.is_limited_from("p1")


@pytest.mark.parametrize(
    "token",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "é.é.é",
        "\ud800",
        "null",
        token_of(secret=FOREIGN),
        token_of(header={"alg": "none"}),
        token_of(header={"alg": "None"}),
        token_of(header={"alg": "hs256"}),
        token_of(header={"alg": "RS256"}),
        token_of(header={"alg": ["HS256"]}),
        token_of(header={"typ": "JWT"}),
        token_of(header={"alg": "HS512"}, digest="sha512"),
        token_of(header={"alg": "HS256", "crit": ["exp"], "exp": 1}),
        token_of(header={"alg": "HS256", "b64": False, "crit": ["b64"]}),
        token_of(header=[1]),
        token_of(header=b"\xff"),
        token_of(b"not json"),
        token_of([]),
        token_of() + "A",
        token_of()[:-4],
        token_of().rsplit(".", 1)[0] + ".",
        segment({"alg": "none"}) + "." + segment(good_claims()) + ".",
    ],
)
def test_forged_or_broken_token_is_refused(token: str) -> None:
    """§3: HS256 alone, signed with a known secret; anything else is a bad token."""
    assert reason_of(token) == "bad_token"


def test_huge_token_is_refused_before_it_is_read() -> None:
    """A token above 8 KiB is refused although it is well signed."""
    fitting = token_of(good_claims(pad="x" * 5000))
    assert len(fitting) <= 8 * 1024
    assert verifier().verify(fitting)
    assert reason_of(token_of(good_claims(pad="x" * 8192))) == "bad_token"


@pytest.mark.parametrize("exp_s", [NOW, NOW - 1])
def test_expired_token_is_refused(exp_s: float) -> None:
    """§3: at its second of expiry a token has expired."""
    assert reason_of(token_of(good_claims(exp=exp_s))) == "expired_token"


def test_token_is_refused_before_its_nbf() -> None:
    """A token is not good before the time it names."""
    assert reason_of(token_of(good_claims(nbf=NOW + 1))) == "early_token"
    assert verifier().verify(token_of(good_claims(nbf=NOW)))


def test_remembered_token_expires_too() -> None:
    """§3: the expiry is checked at every use, also of a token that was verified before."""
    clock = Clock()
    tokens = verifier(clock)
    token = token_of()
    tokens.verify(token)
    clock.now_s = NOW + 59
    assert tokens.verify(token)
    clock.now_s = NOW + 60
    with pytest.raises(AuthenticationError) as caught:
        tokens.verify(token)
    assert caught.value.reason == "expired_token"


def test_good_token_is_decoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that polls does not cost a signature check each time."""
    tokens = verifier()
    token = token_of()
    first = tokens.verify(token)
    monkeypatch.setattr(tokens, "_decode", lambda _: pytest.fail("decoded again"))
    assert tokens.verify(token) is first


def test_memory_of_tokens_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least recently used token is forgotten first."""
    monkeypatch.setattr("service.access.tokens._CACHED_TOKENS", 2)
    tokens = verifier()
    a, b, c = (token_of(good_claims(sub=user)) for user in "abc")
    for token in (a, b, a, c):
        tokens.verify(token)
    decoded: list[str] = []
    decode = tokens._decode

    def noted(token: str) -> Caller:
        decoded.append(token)
        return decode(token)

    monkeypatch.setattr(tokens, "_decode", noted)
    for token in (a, c, b):
        tokens.verify(token)
    assert decoded == [b]


# Where the credentials are


def found(
    *headers: tuple[bytes, bytes], query: bytes = b"", query_token: bool = False
) -> SignedCredentials | TokenCredentials:
    return read_credentials(headers, query, query_token=query_token)


def refusal(*headers: tuple[bytes, bytes], query: bytes = b"", query_token: bool = False) -> str:
    with pytest.raises(AuthenticationError) as caught:
        found(*headers, query=query, query_token=query_token)
    return caught.value.reason


USER = (b"x-seqstream-user", b"alice")
TIMESTAMP = (b"x-seqstream-timestamp", b"1700000000")
SIGNATURE = (b"x-seqstream-signature", b"v2=00")
SCOPE = (b"x-seqstream-scope", b"read")
BEARER = (b"authorization", b"Bearer tok")
COOKIE = (b"cookie", b"a=b; seqstream_token=cook; c=d")


def test_signed_headers_are_read() -> None:
    """§3: X-Seqstream-User, -Timestamp and -Signature, and -Scope where there is one."""
    credentials = SignedCredentials("alice", "1700000000", "v2=00", None)
    assert found(USER, TIMESTAMP, SIGNATURE) == credentials
    credentials = SignedCredentials("alice", "1700000000", "v2=00", "read")
    assert found(USER, TIMESTAMP, SIGNATURE, SCOPE) == credentials


def test_user_id_in_a_header_is_utf8() -> None:
    """§3: a user id may hold any character but control characters and white space."""
    credentials = found((b"x-seqstream-user", "zoë".encode()), TIMESTAMP, SIGNATURE)
    assert credentials == SignedCredentials("zoë", "1700000000", "v2=00", None)
    latin = (b"x-seqstream-user", "zoë".encode("latin-1"))
    assert refusal(latin, TIMESTAMP, SIGNATURE) == "bad_signature"


@pytest.mark.parametrize(
    "headers, query, token",
    [
        ([BEARER], b"", "tok"),
        ([(b"authorization", b"bearer  tok ")], b"", "tok"),
        ([COOKIE], b"", "cook"),
        ([(b"cookie", b'seqstream_token="cook"')], b"", "cook"),
        ([], b"from_seq=0&token=quer%79", "query"),
        ([BEARER, COOKIE], b"token=query", "tok"),
        ([COOKIE], b"token=query", "query"),
        ([(b"authorization", b"Basic dTpw"), COOKIE], b"", "cook"),
        ([COOKIE], b"token=", ""),
    ],
)
def test_token_is_found(headers: list[tuple[bytes, bytes]], query: bytes, token: str) -> None:
    """§3: Bearer, cookie, or ?token=; what was put there for this request goes first."""
    credentials = found(*headers, query=query, query_token=True)
    assert isinstance(credentials, TokenCredentials)
    assert credentials.token == token


HOST_COOKIE = (b"cookie", b"seqstream_token=cook; __Host-seqstream=own; seqstream_token=cook")


@pytest.mark.parametrize(
    "headers, token, from_cookie",
    [
        ([BEARER, COOKIE], "tok", False),
        ([COOKIE], "cook", True),
        ([HOST_COOKIE], "own", True),
        ([(b"cookie", b"__host-seqstream=x; seqstream_token=cook")], "cook", True),
    ],
)
def test_a_cookie_is_known_as_one(
    headers: list[tuple[bytes, bytes]], token: str, from_cookie: bool
) -> None:
    """§3: a browser adds it by itself; `__Host-seqstream`, which only we can set, goes first."""
    assert found(*headers) == TokenCredentials(token, from_cookie)


def test_query_token_is_for_the_stream_alone() -> None:
    """§3: `?token=` is read on the stream endpoint alone."""
    assert refusal(query=b"token=query") == "missing"


def test_no_credentials_is_no_caller() -> None:
    """§3: never an anonymous fallback."""
    assert refusal((b"cookie", b"other=1"), (b"authorization", b"Basic dTpw")) == "missing"


@pytest.mark.parametrize("left_out", [USER, TIMESTAMP, SIGNATURE])
def test_half_a_signature_is_no_token(left_out: tuple[bytes, bytes]) -> None:
    """§3: a bad signature is refused, not replaced by the cookie beside it."""
    headers = [header for header in (USER, TIMESTAMP, SIGNATURE) if header != left_out]
    assert refusal(*headers, COOKIE) == "bad_signature"
    assert refusal(*headers, SCOPE, COOKIE) == "bad_signature"


@pytest.mark.parametrize("token", [BEARER, COOKIE])
def test_scope_header_does_not_go_with_a_token(token: tuple[bytes, bytes]) -> None:
    """§3: it is a part of a signature: what was to be narrowed is not served with all it has."""
    assert refusal(SCOPE, token) == "bad_signature"


@pytest.mark.parametrize("twice", [USER, TIMESTAMP, SIGNATURE, SCOPE, BEARER, COOKIE])
def test_doubled_header_is_refused(twice: tuple[bytes, bytes]) -> None:
    """A proxy and this service could each take another one for the truth."""
    assert refusal(USER, TIMESTAMP, SIGNATURE, twice, twice) == "ambiguous"


def test_doubled_token_is_refused() -> None:
    """The same holds for parameters and cookies."""
    assert refusal(query=b"token=a&token=a", query_token=True) == "ambiguous"
    for name in (b"seqstream_token", b"__Host-seqstream"):
        assert refusal((b"cookie", b"%b=a; %b=b" % (name, name))) == "ambiguous"


@pytest.mark.parametrize("scope, allowed", [("read", True), ("write", False), ("worker", False)])
def test_caller_has_only_its_scopes(scope: Any, allowed: bool) -> None:
    """§3: a scope that the token does not name is not given."""
    assert verifier().verify(token_of()).has_scope(scope) is allowed


@pytest.mark.parametrize("project_id, limited", [("p1", False), ("P1", True), ("p2", True)])
def test_caller_is_limited_to_its_projects(project_id: str, limited: bool) -> None:
    """§3: `projects` is the list that the token is limited to; case is kept."""
    caller = verifier().verify(token_of(good_claims(projects=["p1"])))
    assert caller.is_limited_from(project_id) is limited
