"""Decoding logits into answers."""

from __future__ import annotations

import math

import numpy as np
import pytest

from instructrec_deploy.core.errors import InternalError, RequestError
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.tasks.base import check_kind
from instructrec_deploy.tasks.classify import decode_answers, probabilities


def test_probabilities_are_a_softmax_after_the_temperature() -> None:
    found = probabilities(np.array([[2.0, 0.0]], np.float32), 2.0)
    assert found[0, 0] == pytest.approx(math.e / (math.e + 1))
    assert found.sum() == pytest.approx(1.0)


def test_huge_logits_do_not_overflow() -> None:
    found = probabilities(np.array([[3e4, -3e4]], np.float32), 0.01)
    assert found.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_logit_that_is_no_number_is_our_fault(bad: float) -> None:
    with pytest.raises(InternalError):
        probabilities(np.array([[bad, 1.0]], np.float32), 1.0)


def test_answers_come_best_first_and_as_many_as_asked() -> None:
    logits = np.array([[0.0, 2.0, 1.0], [3.0, 0.0, 0.0]], np.float32)
    first, second = decode_answers(
        logits, ("负面", "positive", "🙂"), top_ks=[2, 0], task="t", prepared_id="k"
    )
    assert [s.label for s in first.scores] == ["positive", "🙂"]
    assert (first.label, first.task, first.prepared_id) == ("positive", "t", "k")
    assert first.score == first.scores[0].score
    assert [s.label for s in second.scores] == ["负面", "positive", "🙂"]


def test_of_equal_scores_the_earlier_candidate_comes_first() -> None:
    answer = decode_answers(np.zeros((1, 3), np.float32), ("a", "b", "c"), top_ks=[0])[0]
    assert [s.label for s in answer.scores] == ["a", "b", "c"]


def test_more_scores_than_candidates_are_all_of_them() -> None:
    answer = decode_answers(np.zeros((1, 2), np.float32), ("a", "b"), top_ks=[9])[0]
    assert len(answer.scores) == 2


def test_a_kind_that_the_model_does_not_answer_is_refused() -> None:
    check_kind(TaskKind.RANKING, finds_spans=False)
    check_kind(TaskKind.NER, finds_spans=True)
    with pytest.raises(RequestError):
        check_kind(TaskKind.NER, finds_spans=False)
    with pytest.raises(RequestError):
        check_kind(TaskKind.SUMMARIZATION, finds_spans=True)
