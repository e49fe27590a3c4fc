"""An asyncpg that lacks what this project uses of its inside is refused on import."""

from __future__ import annotations

import re
import runpy

import asyncpg
import pytest

from streams.log import asyncpg_internals
from streams.log.asyncpg_internals import is_open, require


def test_a_missing_attribute_is_reported_with_the_version() -> None:
    """The error names the installed version and the missing attribute."""
    message = f"asyncpg {asyncpg.__version__} has no Pool.vanished,"
    with pytest.raises(ImportError, match=re.escape(message)):
        require(asyncpg.Pool, "vanished")


@pytest.mark.parametrize(
    ("owner", "attribute"),
    [
        (asyncpg, "InternalClientError"),
        (asyncpg.Connection, "get_reset_query"),
        (asyncpg.Pool, "release"),
        (asyncpg.pool, "PoolConnectionProxy"),
        (asyncpg.pool.PoolConnectionProxy, "is_closed"),
        (asyncpg.pool.PoolConnectionProxy, "terminate"),
    ],
)
def test_the_module_cannot_be_imported_without_them(
    monkeypatch: pytest.MonkeyPatch, owner: object, attribute: str
) -> None:
    """The process fails at start, not in the middle of an append."""
    monkeypatch.delattr(owner, attribute)
    with pytest.raises(ImportError, match=attribute):
        runpy.run_path(asyncpg_internals.__file__)


def test_a_connection_that_the_pool_took_back_is_not_open() -> None:
    """Its proxy raises `InterfaceError` from then on."""
    proxy = object.__new__(asyncpg.pool.PoolConnectionProxy)
    proxy._con = None
    assert not is_open(proxy)
