"""The token of a client, and its renewal."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from service.client.client_errors import TokenFailed
from service.client.token_source import TokenSource, check_token


async def test_renewals_at_the_same_time_are_one() -> None:
    """Three hundred streams whose token expired ask for one token."""
    made = itertools.count(1)

    async def make() -> str:
        await asyncio.sleep(0)
        return f"t{next(made)}"

    tokens = TokenSource(make)
    assert await tokens.current() == "t1"
    await asyncio.gather(*(tokens.renew("t1") for _ in range(300)))
    assert await tokens.current() == "t2"


async def test_a_plain_function_may_make_tokens() -> None:
    """Not only coroutine functions."""
    assert await TokenSource(lambda: "t").current() == "t"


async def test_an_exception_of_the_callable_is_translated() -> None:
    """Its own is the cause."""

    def make() -> str:
        raise OSError("no network")

    with pytest.raises(TokenFailed) as raised:
        await TokenSource(make).current()
    assert isinstance(raised.value.__cause__, OSError)


@pytest.mark.parametrize("token", ["", "a\r\nX-Other: 1", "a\x00", "ä"])
def test_a_token_that_no_header_can_carry_is_refused(token: str) -> None:
    """It must not begin another header."""
    with pytest.raises(TokenFailed):
        check_token(token)


async def test_a_made_token_is_checked_too() -> None:
    """A callable that returns a file with a line break at its end."""
    with pytest.raises(TokenFailed):
        await TokenSource(lambda: "token\n").current()
