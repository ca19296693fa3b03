"""Vectors of single candidates, kept for every instruction: the sets of rankings overlap."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np

from instructrec_deploy.tasks.base import Floats
from instructrec_deploy.text.tokenizer import EncodedCandidate

ENTRY_BYTES = 250  # of an entry without its key and vector, about


def vector_key(row: EncodedCandidate) -> bytes:
    """What decides a candidate's vector: the ids, and which of them are its own words."""
    return np.array([*row.own, *row.ids], np.int32).tobytes()


class VectorCache:
    """Vectors [H] by key: least recently used out first, bounded in bytes, thread-safe."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[bytes, Floats] = OrderedDict()
        self._size_bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def size_bytes(self) -> int:
        """Bytes of all entries, about."""
        return self._size_bytes

    def find(self, keys: Sequence[bytes]) -> list[Floats | None]:
        """The vector of each key; None where it is not there."""
        with self._lock:
            for key in keys:
                if key in self._entries:
                    self._entries.move_to_end(key)
            return [self._entries.get(key) for key in keys]

    def keep(self, pairs: Iterable[tuple[bytes, Floats]]) -> None:
        """Take vectors in; copies, so that no larger array is held by them."""
        with self._lock:
            for key, vector in pairs:
                if key not in self._entries:
                    self._entries[key] = vector.copy()
                    self._size_bytes += _entry_bytes(key, vector)
            while self._size_bytes > self._max_bytes:
                self._size_bytes -= _entry_bytes(*self._entries.popitem(last=False))


def _entry_bytes(key: bytes, vector: Floats) -> int:
    return ENTRY_BYTES + len(key) + vector.nbytes
