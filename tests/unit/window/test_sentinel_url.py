"""The form of `redis+sentinel://` URLs, docs/protocol.md §7."""

from __future__ import annotations

from streams.window.redis_factory import SentinelAddress, parse_sentinel_url


def test_all_parts_of_a_sentinel_url_are_read() -> None:
    """Several Sentinels, one without a port; percent-encoded credentials; a database."""
    parsed = parse_sentinel_url("redis+sentinel://u%40:p%2Fw@one:1,two/main/3")
    assert parsed == SentinelAddress([("one", 1), ("two", 26379)], "main", 3, "u@", "p/w")


def test_a_sentinel_url_needs_no_credentials_and_no_database() -> None:
    """The database is then 0."""
    parsed = parse_sentinel_url("redis+sentinel://one:1/main")
    assert parsed == SentinelAddress([("one", 1)], "main", 0, None, None)
