"""Preparing instructions, and the cache that keeps them."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.core.errors import LabelUnknown, RequestError
from instructrec_deploy.core.instruction import Candidate, Instruction
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.runtime.engine import pad_rows
from instructrec_deploy.runtime.pipeline import Pipeline
from instructrec_deploy.runtime.prepared import (
    PreparedCache,
    PreparedInstruction,
    PreparedSettings,
    Preparer,
)
from tests.tiny import LABELS

ASKED = Instruction.of("What does the customer want?", LABELS)


def fake(key: str, n_rows: int = 1) -> PreparedInstruction:
    instruction = Instruction.of("what", ["a"])
    return PreparedInstruction(key, instruction, ("a",), np.zeros((n_rows, 256), np.float32))


def test_a_vector_is_the_weighted_mean_of_its_states(pipeline: Pipeline) -> None:
    prepared = pipeline.prepare(ASKED)
    weight = pipeline.bundle.manifest.model.instruction_weight
    rows = pipeline.tokenizer.encode_candidates(ASKED.text, LABELS, instruction_weight=weight)
    assert prepared.vectors is not None
    for vector, row in zip(prepared.vectors, rows, strict=True):
        states = pipeline.engine.encode(*pad_rows([row.ids], 0)).token_states
        assert states is not None
        mean = np.average(states[0], axis=0, weights=row.weights)
        assert vector == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)


def test_the_order_of_candidates_is_kept_whatever_their_lengths(pipeline: Pipeline) -> None:
    words = [f"card {'lost ' * (i % 7)}{i}" for i in range(100)]
    many = pipeline.prepare(Instruction.of("what", words))
    assert many.labels == tuple(words)
    assert many.vectors is not None
    for position in (0, 50, 99):
        one = pipeline.prepare(Instruction.of("what", [words[position]]))
        assert one.vectors is not None
        assert many.vectors[position] == pytest.approx(one.vectors[0], abs=1e-5)


def test_a_description_is_read_in_place_of_the_label(pipeline: Pipeline) -> None:
    described = pipeline.prepare(Instruction.of("what", [Candidate("x1", "card lost")]))
    plain = pipeline.prepare(Instruction.of("what", ["card lost"]))
    assert described.labels == ("x1",)
    assert np.array_equal(described.vectors, plain.vectors)  # type: ignore[arg-type]


def test_a_long_preparation_comes_in_steps(pipeline: Pipeline) -> None:
    settings = PreparedSettings(step_tokens=64)
    preparer = Preparer(pipeline.engine, pipeline.tokenizer, settings)
    steps = preparer.steps(Instruction.of("what", [f"card {i}" for i in range(40)]), "k")
    assert len(list(steps)) > 3


def test_a_candidate_that_was_read_for_another_set_is_not_read_again(pipeline: Pipeline) -> None:
    settings = PreparedSettings(step_tokens=1)  # a step for each candidate that is read

    def read(preparer: Preparer, candidates: list[Candidate]) -> tuple[int, PreparedInstruction]:
        steps, n_steps = preparer.steps(Instruction.of("哪个？", candidates), "k"), 0
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return n_steps, end.value
            n_steps += 1

    preparer = Preparer(pipeline.engine, pipeline.tokenizer, settings)
    films = [Candidate(str(i), words) for i, words in enumerate(["card lost", "余额", "refund 😊"])]
    assert read(preparer, films)[0] == 2  # between three candidates
    again = [Candidate("9", "我的 pin"), *(Candidate(c.label, c.words, 2.0) for c in films[::-1])]
    n_steps, found = read(preparer, again)
    assert n_steps == 0
    fresh = read(Preparer(pipeline.engine, pipeline.tokenizer, settings), again)[1]
    assert found.vectors == pytest.approx(fresh.vectors, abs=1e-5)  # rounding of another batch
    none_kept = settings.model_copy(update={"max_vector_bytes": 0})
    preparer = Preparer(pipeline.engine, pipeline.tokenizer, none_kept)
    assert [read(preparer, films)[0] for _ in range(2)] == [2, 2]


def test_a_model_with_fixed_labels_picks_columns(head_pipeline: Pipeline) -> None:
    prepared = head_pipeline.prepare(Instruction.of("any", [LABELS[3], LABELS[1]]))
    assert prepared.columns is not None
    assert prepared.columns.tolist() == [3, 1]
    with pytest.raises(LabelUnknown):
        head_pipeline.prepare(Instruction.of("any", ["something else"]))


def test_a_kind_that_is_not_served_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(RequestError):
        pipeline.prepare(Instruction.of("find names", ["person"], kind=TaskKind.NER))


def test_the_least_recently_used_goes_first() -> None:
    cache = PreparedCache(3 * fake("x").size_bytes)
    for key in "abc":
        cache.put(fake(key))
    assert cache.get("a") is not None
    cache.put(fake("d"))
    assert [key in cache for key in "abcd"] == [True, False, True, True]
    assert cache.counts.n_evictions == 1
    assert cache.get("b") is None
    assert (cache.counts.n_hits, cache.counts.n_misses) == (1, 1)


def test_what_exceeds_the_whole_bound_is_not_kept() -> None:
    cache = PreparedCache(5000)
    cache.put(fake("a"))
    cache.put(fake("big", 100))
    assert ("a" in cache, "big" in cache) == (True, False)
    assert cache.get_or_make("big", lambda: fake("big", 100)).key == "big"


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(1, 6)), max_size=40))
def test_the_cache_keeps_its_bound_and_its_count_of_bytes(puts: list[tuple[str, int]]) -> None:
    cache = PreparedCache(20_000)
    kept = {}
    for key, n_rows in puts:
        kept[key] = fake(key, n_rows)
        cache.put(kept[key])
        assert cache.size_bytes <= 20_000
    assert cache.size_bytes == sum(kept[k].size_bytes for k in kept if k in cache)


def test_threads_that_want_the_same_instruction_wait_for_the_first() -> None:
    cache = PreparedCache()
    started, go, made = threading.Event(), threading.Event(), []

    def make() -> PreparedInstruction:
        started.set()
        assert go.wait(10)
        made.append(1)
        return fake("k")

    with ThreadPoolExecutor(4) as pool:
        first = pool.submit(cache.get_or_make, "k", make)
        assert started.wait(10)
        others = [pool.submit(cache.get_or_make, "k", make) for _ in range(3)]
        go.set()
        assert all(other.result(10) is first.result(10) for other in others)
    assert made == [1]


def test_a_failed_preparation_is_not_kept() -> None:
    cache = PreparedCache()

    def fail() -> PreparedInstruction:
        raise LabelUnknown("no", hint="no")

    with pytest.raises(LabelUnknown):
        cache.get_or_make("k", fail)
    assert cache.get_or_make("k", lambda: fake("k")).key == "k"
