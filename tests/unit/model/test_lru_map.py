"""The bounded map evicts the least recently used key."""

from __future__ import annotations

import pytest

from streams.model.lru_map import LruMap


def test_the_least_recently_used_key_is_evicted() -> None:
    """`get` and `put` count as use."""
    known: LruMap[str, int] = LruMap(2)
    known.put("a", 1)
    known.put("b", 2)
    assert known.get("a") == 1
    assert known.put("c", 3) == ("b", 2)
    assert list(known) == ["a", "c"]


def test_putting_a_key_again_replaces_its_value_and_counts_as_use() -> None:
    """No key is evicted for one that is present."""
    known: LruMap[str, int] = LruMap(2)
    known.put("a", 1)
    known.put("b", 2)
    assert known.put("a", 3) is None
    assert known.put("c", 4) == ("b", 2)
    assert known.get("a") == 3


def test_peek_and_in_do_not_count_as_use() -> None:
    """They leave the order unchanged."""
    known: LruMap[str, int] = LruMap(2)
    known.put("a", 1)
    known.put("b", 2)
    assert known.peek("a") == 1
    assert "a" in known
    known.put("c", 3)
    assert "a" not in known


def test_a_falsy_value_is_a_value() -> None:
    """A key with the value 0 is present, and `get` marks it as used."""
    known: LruMap[str, int] = LruMap(2)
    known.put("a", 0)
    known.put("b", 2)
    assert known.get("a") == 0
    known.put("c", 3)
    assert list(known) == ["a", "c"]


def test_pop_removes_a_key() -> None:
    """It returns the value, or None for an absent key."""
    known: LruMap[str, int] = LruMap(3)
    for number, key in enumerate("abc"):
        known.put(key, number)
    assert known.pop("b") == 1
    assert known.pop("b") is None
    assert list(known) == ["a", "c"]


def test_a_bound_below_one_is_refused() -> None:
    """A map without room for a key is a mistake."""
    with pytest.raises(ValueError):
        LruMap[str, int](0)


def test_clear_forgets_every_key() -> None:
    """And the bound stays."""
    known: LruMap[str, int] = LruMap(1)
    known.put("a", 1)
    known.clear()
    assert list(known) == []
    known.put("b", 2)
    assert known.put("c", 3) == ("b", 2)
