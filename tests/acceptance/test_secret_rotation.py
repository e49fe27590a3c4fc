"""docs/operations.md, "Changing secrets": two processes, changed one at a time, without a 401."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from service.operate.embedded import free_port
from tests.support.api import Api
from tests.support.processes import ServiceProcess, service_environment
from tests.support.raw_stream import raw_request
from tests.support.signing import HMAC_SECRET, TOKEN_SECRET, signed_headers
from tests.support.signing import token as token_of

_PROJECT = "rotated"
_NEW_HMAC = "test-only-new-hmac-secret-0123456789"
_NEW_TOKEN = "test-only-new-token-secret-0123456789"


def _secrets(*, hmac: list[str], token: list[str]) -> dict[str, str]:
    return {
        "SEQSTREAM_HMAC_SECRETS": ",".join(hmac),
        "SEQSTREAM_TOKEN_SECRETS": ",".join(token),
    }


OLD = _secrets(hmac=[HMAC_SECRET], token=[TOKEN_SECRET])
NEW_LAST = _secrets(hmac=[HMAC_SECRET, _NEW_HMAC], token=[TOKEN_SECRET, _NEW_TOKEN])
NEW_FIRST = _secrets(hmac=[_NEW_HMAC, HMAC_SECRET], token=[_NEW_TOKEN, TOKEN_SECRET])
NEW = _secrets(hmac=[_NEW_HMAC], token=[_NEW_TOKEN])
STEPS = [NEW_LAST, NEW_FIRST, NEW]


class Pair:
    """Two processes of one service, whose secrets change one process at a time."""

    def __init__(self, database_url: str, redis_url: str, folder: Path) -> None:
        self._stores = database_url, redis_url
        self._folder = folder
        self._ports = [free_port(), free_port()]
        self.processes: list[ServiceProcess] = []

    async def set(self, index: int, secrets: dict[str, str]) -> None:
        """Start or restart a process with these secrets."""
        if index < len(self.processes):
            await self.processes[index].stop()
        environment = service_environment(*self._stores, secrets)
        process = ServiceProcess(
            f"service-{index}", self._folder, environment, port=self._ports[index]
        )
        self.processes[index : index + 1] = [process]
        await process.start()

    async def mint(self, index: int, *, secret: str) -> str:
        """Return a stream token minted by one process for a request signed with `secret`."""
        path = f"/v1/projects/{_PROJECT}/stream-tokens"
        async with httpx.AsyncClient(base_url=self.processes[index].url, trust_env=False) as http:
            answer = await http.post(
                path, headers=signed_headers("POST", path, "owner", secret=secret)
            )
        assert answer.status_code == 201, f"{answer.text} from process {index}"
        minted: str = answer.json()["token"]
        return minted

    async def opens(self, index: int, token: str) -> int:
        """Open a stream with a token, wait until it is live if accepted, and return the status."""
        target = f"/v1/projects/{_PROJECT}/chat/stream?token={token}"
        async with raw_request(self.processes[index].port, target) as stream:
            if stream.status == 200:
                await stream.wait_for("stream.live")
            return stream.status


@pytest.fixture
async def pair(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Pair]:
    """Both processes with the old secrets, and a project owned by `owner`."""
    pair = Pair(database_url, redis_url, tmp_path)
    async with contextlib.AsyncExitStack() as stack:
        for index in (0, 1):
            await pair.set(index, OLD)
            stack.push_async_callback(_stop, pair, index)
        async with Api(pair.processes[0].url, "owner") as owner:
            await owner.create_project(_PROJECT)
        yield pair


async def _stop(pair: Pair, index: int) -> None:
    await pair.processes[index].stop()


async def _check(pair: Pair, *, secret: str, tokens: list[str]) -> list[str]:
    """Mint a token on each process, and open streams on both with the new and earlier tokens."""
    minted = [await pair.mint(index, secret=secret) for index in (0, 1)]
    for token in [*tokens, *minted]:
        assert [await pair.opens(index, token) for index in (0, 1)] == [200, 200]
    return minted


async def test_the_documented_order_of_changes_refuses_no_token(pair: Pair) -> None:
    """§3: append the new secret on all processes, move it to the front, then remove the old one.

    After each change of one process, tokens that either process minted in this step or in the
    step before open streams on both.
    """
    tokens = await _check(pair, secret=HMAC_SECRET, tokens=[])
    for step in STEPS:
        if step is NEW:
            # By now tokens of the old secret have expired and signers use the new secret.
            tokens = [await pair.mint(index, secret=_NEW_HMAC) for index in (0, 1)]
        for index in (0, 1):
            await pair.set(index, step)
            signs = HMAC_SECRET if step is NEW_LAST else _NEW_HMAC
            minted = await _check(pair, secret=signs, tokens=tokens)
        tokens = minted
    # Tokens signed with the old secret are no longer accepted.
    assert await pair.opens(0, token_of("owner", secret=TOKEN_SECRET)) == 401


async def test_a_new_secret_put_first_at_once_breaks_clients(pair: Pair) -> None:
    """docs/operations.md: the other process does not have the secret that signed the token.

    It returns 401, after which an EventSource never reconnects.
    """
    await pair.set(0, NEW_FIRST)
    token = await pair.mint(0, secret=HMAC_SECRET)
    assert [await pair.opens(index, token) for index in (0, 1)] == [200, 401]
