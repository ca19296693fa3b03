"""Token scores to spans: borders, overlaps, windows, no answer."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.core.decision import Decision
from instructrec_deploy.core.errors import InternalError
from instructrec_deploy.tasks.base import Floats
from instructrec_deploy.tasks.extract import (
    END,
    INSIDE,
    START,
    Window,
    decode_entities,
    find_answers,
    find_entities,
    word_borders,
)

TEXT = "张伟 met Ms. Müller in Zürich 😀 today"
OFFSETS = [(0, 0), (0, 1), (1, 2), (3, 6), (7, 9), (9, 10), (11, 14), (14, 17), (18, 20)]
OFFSETS += [(21, 24), (24, 27), (28, 29), (30, 35), (0, 0)]
LABELS = ("person", "place")
MUELLER, ZURICH = (6, 7), (9, 10)  # first and last token


def scores_of(*spans: tuple[int, int, int], sure: float = 6.0) -> Floats:
    """[T, 2, 3] logits that mark (candidate, first, last) spans."""
    scores = np.full((len(OFFSETS), len(LABELS), 3), -6.0, np.float32)
    for candidate, first, last in spans:
        scores[first, candidate, START] = sure
        scores[last, candidate, END] = sure
        scores[first : last + 1, candidate, INSIDE] = sure
    return scores


def found(scores: Floats, **options: float) -> list[tuple[str, str]]:
    spans = find_entities([Window(scores, OFFSETS)], LABELS, TEXT, **options)
    assert all(TEXT[s.start : s.end] == s.text for s in spans)
    return [(s.label, s.text) for s in spans]


def test_marked_spans_are_found_in_the_order_of_the_text() -> None:
    scores = scores_of((1, *ZURICH), (0, *MUELLER), (0, 1, 2))
    assert found(scores) == [("person", "张伟"), ("person", "Müller"), ("place", "Zürich")]


def test_a_threshold_of_the_decision_goes_before_the_default() -> None:
    windows = [Window(scores_of((0, *MUELLER), sure=-0.8), OFFSETS)]  # a probability of 0.31

    def found_at(default: float, **own: float) -> int:
        decision = Decision(**own)
        answer = decode_entities(
            windows, LABELS, TEXT, decision=decision, default_threshold=default
        )
        return len(answer.spans)

    assert (found_at(0.3), found_at(0.5)) == (1, 0)
    assert (found_at(0.3, threshold=0.5), found_at(0.5, threshold=0.3)) == (0, 1)


def test_of_overlapping_spans_the_surer_one_stays() -> None:
    scores = np.maximum(scores_of((0, *MUELLER), sure=2.0), scores_of((1, 4, 7), sure=5.0))
    assert found(scores) == [("place", "Ms. Müller")]


def test_a_span_never_begins_or_ends_within_a_word() -> None:
    assert found(scores_of((0, 6, 6))) == []  # "Mül" of "Müller"
    assert found(scores_of((0, 1, 1))) == [("person", "张")]  # a Han character is a word


def test_a_span_below_the_threshold_is_left_out() -> None:
    scores = scores_of((0, *MUELLER), sure=0.0)  # three probabilities of one half
    assert found(scores, threshold=0.49) == [("person", "Müller")]
    assert found(scores, threshold=0.51) == []


def test_a_span_that_two_windows_see_is_found_once() -> None:
    scores = scores_of((1, *ZURICH))
    windows = [Window(scores[:11], OFFSETS[:11]), Window(scores[6:], OFFSETS[6:])]
    assert [s.text for s in find_entities(windows, LABELS, TEXT)] == ["Zürich"]


def test_an_answer_is_the_span_with_the_best_borders() -> None:
    scores = scores_of((0, *MUELLER))[:, :1]
    best = find_answers([Window(scores, OFFSETS)], TEXT, top_k=3)
    assert best[0].text == "Müller"
    assert best[0].score > 0.99
    assert [s.score for s in best] == sorted((s.score for s in best), reverse=True)


def test_no_answer_is_given_where_the_control_token_is_surer() -> None:
    scores = scores_of((0, *MUELLER), sure=1.0)[:, :1]
    scores[0, 0, :2] = 2.0
    assert find_answers([Window(scores, OFFSETS)], TEXT) == []


def test_the_window_with_the_answer_outvotes_one_without() -> None:
    empty = scores_of()[:, :1]
    empty[0, 0, :2] = 8.0
    sure = scores_of((0, *ZURICH))[:, :1]
    best = find_answers([Window(empty, OFFSETS), Window(sure, OFFSETS)], TEXT)
    assert [s.text for s in best] == ["Zürich"]


def test_a_score_that_is_no_number_is_an_error() -> None:
    scores = scores_of()
    scores[3, 0, 0] = np.nan
    with pytest.raises(InternalError):
        find_entities([Window(scores, OFFSETS)], LABELS, TEXT)


@given(st.text(st.sampled_from("ab 张三😀.1"), min_size=1, max_size=24), st.integers(0, 2**31))
def test_spans_lie_in_the_text_and_never_overlap(text: str, seed: int) -> None:
    offsets = [(0, 0), *((i, i + 1) for i in range(len(text))), (0, 0)]
    rng = np.random.default_rng(seed)
    scores = rng.normal(0.0, 4.0, (len(offsets), 2, 3)).astype(np.float32)
    spans = find_entities([Window(scores, offsets)], LABELS, text, threshold=0.3)
    assert all(0 <= s.start < s.end <= len(text) for s in spans)
    assert all(a.end <= b.start for a, b in itertools.pairwise(spans))
    opens, closes = word_borders(offsets, text)
    assert all(opens[s.start + 1] and closes[s.end] for s in spans)
