"""A bounded dictionary that evicts the least recently used key. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LruMap(Generic[K, V]):
    """Holds at most `most` keys. `get` and `put` count as use of a key; other methods do not.

    Iteration begins with the least recently used key; the map must not change during it.
    """

    __slots__ = ("_items", "most")

    def __init__(self, most: int) -> None:
        """`most` is at least 1."""
        if most < 1:
            raise ValueError("room for at least one key is needed")
        self.most = most
        self._items: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._items)

    def __contains__(self, key: object) -> bool:
        return key in self._items

    def __iter__(self) -> Iterator[K]:
        return iter(self._items)

    def get(self, key: K) -> V | None:
        """Return the value of a key and mark it as used; None when it is absent."""
        value = self._items.get(key)
        if value is not None:
            self._items.move_to_end(key)
        return value

    def peek(self, key: K) -> V | None:
        """Return the value of a key without marking it as used; None when it is absent."""
        return self._items.get(key)

    def put(self, key: K, value: V) -> tuple[K, V] | None:
        """Set a value and mark its key as used; return the key and value evicted for it, if any."""
        items = self._items
        items[key] = value
        items.move_to_end(key)
        return items.popitem(last=False) if len(items) > self.most else None

    def pop(self, key: K) -> V | None:
        """Remove a key and return its value; None when it is absent."""
        return self._items.pop(key, None)

    def clear(self) -> None:
        """Forget every key."""
        self._items.clear()
