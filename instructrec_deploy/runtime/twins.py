"""Of things in flight that cost as much as one of them, one counts."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT", bound=Hashable)


class Twins(Generic[ItemT]):
    """Of things that cost as much as one of them, one counts: the first that is still there.

    A key of None has no twins. Not thread-safe: its owner holds a lock.
    """

    def __init__(self) -> None:
        self._groups: dict[Hashable, dict[ItemT, None]] = {}

    def add(self, key: Hashable, item: ItemT) -> bool:
        """Whether it counts: there is no other of its key."""
        if key is None:
            return True
        group = self._groups.setdefault(key, {})
        group[item] = None
        return len(group) == 1

    def remove(self, key: Hashable, item: ItemT) -> ItemT | None:
        """Take one out; the one that counts in its place from now on, where that is another."""
        if key is None:
            return None
        group = self._groups[key]
        did_count = next(iter(group)) is item
        del group[item]
        if not group:
            del self._groups[key]
            return None
        return next(iter(group)) if did_count else None

    def of(self, key: Hashable) -> Iterable[ItemT]:
        """All of a key, those that came first at the front."""
        return self._groups.get(key, ())
