"""docs/protocol.md §3: scope and lifetime of tokens minted by `POST …/stream-tokens`."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx
import jwt
import pytest

from tests.acceptance.conftest import Project, Services
from tests.support.signing import TOKEN_SECRET, token


def _claims(answer: httpx.Response) -> dict[str, object]:
    claims: dict[str, object] = jwt.decode(
        answer.json()["token"], TOKEN_SECRET, algorithms=["HS256"], audience="seqstream"
    )
    return claims


async def _mint(
    services: Services, project: Project, credentials: str, body: object = None
) -> httpx.Response:
    async with httpx.AsyncClient(base_url=services.a.url, trust_env=False) as http:
        return await http.post(
            f"/v1/projects/{project.id}/stream-tokens",
            json=body or {},
            headers={"Authorization": f"Bearer {credentials}"},
        )


async def test_a_minted_token_expires_no_later_than_the_callers_token(
    services: Services, project: Project
) -> None:
    """§3: `expiresAt` is not after the caller's own expiry."""
    own = token("owner", ttl_s=300, scope="read write")
    own_exp = jwt.decode(own, options={"verify_signature": False})["exp"]
    minted = await _mint(services, project, own, {"ttlSeconds": 86_400})
    assert minted.status_code == 201
    assert _claims(minted)["exp"] == own_exp
    assert datetime.fromisoformat(minted.json()["expiresAt"]) == datetime.fromtimestamp(
        own_exp, UTC
    )
    shorter = await _mint(services, project, own, {"ttlSeconds": 60})
    assert int(str(_claims(shorter)["exp"])) < own_exp


async def test_a_minted_cookie_expires_with_its_token(services: Services, project: Project) -> None:
    """§3: `Max-Age` is the token's lifetime, also where the caller's expiry shortens it."""
    own = token("owner", ttl_s=300, scope="read write")
    minted = await _mint(services, project, own, {"cookie": True, "ttlSeconds": 86_400})
    cookie = minted.headers["set-cookie"]
    age_s = int(cookie.lower().partition("max-age=")[2].partition(";")[0])
    assert 0 < age_s <= 300


@pytest.mark.parametrize("scope", ["read", "write", "worker", "write worker", "read worker"])
async def test_minting_needs_read_and_write(
    services: Services, project: Project, scope: str
) -> None:
    """§3: a read-only token cannot prolong itself; a write-only token cannot gain `read`."""
    path = f"/v1/projects/{project.id}/stream-tokens"
    by_token = await _mint(services, project, token("owner", scope=scope))
    signed = await project.api.request("POST", path, {}, scope=scope)
    for refused in (by_token, signed):
        assert (refused.status_code, refused.json()["code"]) == (403, "FORBIDDEN")


async def test_a_minted_token_only_reads_its_project(services: Services, project: Project) -> None:
    """§3: scope `read` for one project, whatever the scopes of the caller are."""
    own = token("owner", scope="read write worker")
    claims = _claims(await _mint(services, project, own))
    assert (claims["sub"], claims.get("scope", "read"), claims["projects"]) == (
        "owner",
        "read",
        [project.id],
    )


async def test_a_minted_token_never_has_the_callers_admin(
    services: Services, project: Project
) -> None:
    """§3: a page gets `read` for its project, whatever the scopes of the backend that minted it."""
    minted = await _mint(services, project, token("owner", scope="read write worker admin"))
    assert minted.status_code == 201
    claims = _claims(minted)
    # `read` is left out: it is what a token without `scope` has.
    assert (claims.get("scope", "read"), claims["projects"]) == ("read", [project.id])
