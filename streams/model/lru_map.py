"""A dictionary with a bound: the least recently used key goes first. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterator
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class LruMap(Generic[K, V]):
    """Remembers at most `most` keys. `get` and `put` use a key; `peek` and iteration do not.

    Iteration begins with the least recently used key; the map must not change meanwhile.
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
        """Return the value of a key and use it; None when it is not remembered."""
        value = self._items.get(key)
        if value is not None:
            self._items.move_to_end(key)
        return value

    def peek(self, key: K) -> V | None:
        """Return the value of a key without using it."""
        return self._items.get(key)

    def put(self, key: K, value: V) -> tuple[K, V] | None:
        """Remember a value and use its key; return what was forgotten for it, if anything was."""
        items = self._items
        items[key] = value
        items.move_to_end(key)
        return items.popitem(last=False) if len(items) > self.most else None

    def pop(self, key: K) -> V | None:
        """Forget a key and return its value."""
        return self._items.pop(key, None)

    def pop_oldest(self) -> tuple[K, V]:
        """Forget the least recently used key and return it.

        Raises:
            KeyError: nothing is remembered.
        """
        return self._items.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._items.clear()
