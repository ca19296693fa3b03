"""Vectors of single candidates stay within their bound, the least used go first."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.runtime.vectors import ENTRY_BYTES, VectorCache, vector_key
from instructrec_deploy.text.tokenizer import EncodedCandidate

ENTRY = ENTRY_BYTES + 1 + 16  # a key of one byte, a vector of four float32


def vector(value: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.full(4, value, np.float32)


def test_equal_ids_with_other_words_of_their_own_are_other_candidates() -> None:
    whole = EncodedCandidate([2, 7, 8, 3], [1.0] * 4, (1, 3))
    part = EncodedCandidate([2, 7, 8, 3], [0.5, 0.5, 1.0, 0.5], (2, 3))
    assert vector_key(whole) != vector_key(part)


def test_what_was_not_used_for_longest_goes_first() -> None:
    cache = VectorCache(2 * ENTRY)
    cache.keep([(b"a", vector(1)), (b"b", vector(2))])
    cache.find([b"a"])
    cache.keep([(b"c", vector(3))])
    assert [found is not None for found in cache.find([b"a", b"b", b"c"])] == [True, False, True]


def test_a_kept_vector_does_not_change_with_the_array_it_came_from() -> None:
    cache, source = VectorCache(1 << 20), vector(1)
    cache.keep([(b"a", source)])
    source[:] = 9
    (found,) = cache.find([b"a"])
    assert found is not None
    assert found.tolist() == [1.0] * 4


@given(st.lists(st.binary(min_size=1, max_size=1)), st.integers(0, 6 * ENTRY))
def test_it_never_holds_more_than_its_bound(keys: list[bytes], max_bytes: int) -> None:
    cache = VectorCache(max_bytes)
    for key in keys:
        cache.keep([(key, vector(key[0]))])
        assert cache.size_bytes == len(cache) * ENTRY <= max_bytes
    for key, found in zip(keys, cache.find(keys), strict=True):
        assert found is None or found[0] == key[0]
