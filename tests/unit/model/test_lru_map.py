"""The bounded map: the least recently used key goes first."""

from __future__ import annotations

import pytest

from streams.model.lru_map import LruMap


def test_the_least_recently_used_key_is_forgotten() -> None:
    """`get` and `put` use a key."""
    known: LruMap[str, int] = LruMap(2)
    known.put("a", 1)
    known.put("b", 2)
    assert known.get("a") == 1
    assert known.put("c", 3) == ("b", 2)
    assert list(known) == ["a", "c"]


def test_a_key_that_is_put_again_has_the_new_value_and_is_used() -> None:
    """Nothing is forgotten for a key that is there."""
    known: LruMap[str, int] = LruMap(2)
    known.put("a", 1)
    known.put("b", 2)
    assert known.put("a", 3) is None
    assert known.put("c", 4) == ("b", 2)
    assert known.get("a") == 3


def test_looking_does_not_use_a_key() -> None:
    """`peek` and `in` leave the order as it is."""
    known: LruMap[str, int] = LruMap(2)
    known.put("a", 1)
    known.put("b", 2)
    assert known.peek("a") == 1
    assert "a" in known
    known.put("c", 3)
    assert "a" not in known


def test_a_falsy_value_is_remembered() -> None:
    """0 is a value."""
    known: LruMap[str, int] = LruMap(2)
    known.put("a", 0)
    known.put("b", 2)
    assert known.get("a") == 0
    known.put("c", 3)
    assert list(known) == ["a", "c"]


def test_keys_are_forgotten_by_name_and_by_age() -> None:
    """`pop` of what is not there is none; `pop_oldest` of nothing is an error."""
    known: LruMap[str, int] = LruMap(3)
    for number, key in enumerate("abc"):
        known.put(key, number)
    assert known.pop("b") == 1
    assert known.pop("b") is None
    assert known.pop_oldest() == ("a", 0)
    known.clear()
    with pytest.raises(KeyError):
        known.pop_oldest()


def test_a_map_without_room_is_refused() -> None:
    """A bound of 0 would be no map."""
    with pytest.raises(ValueError):
        LruMap[str, int](0)
