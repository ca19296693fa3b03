"""Priors of candidates: their own, a task's, and what they weigh."""

from __future__ import annotations

import math

import pytest
from pydantic import ValidationError

from instructrec_deploy.core.errors import PriorInvalid
from instructrec_deploy.core.instruction import Candidate, Instruction
from instructrec_deploy.core.manifest import TaskSpec

FILMS = [Candidate("1", "玩具总动员: 动画", prior=2.0), Candidate("2", "Heat: Crime")]


def test_a_logit_gains_weight_times_prior() -> None:
    asked = Instruction.of("Which film next?", FILMS, prior_weight=0.5)
    assert asked.prior_logits == (1.0, 0.0)
    assert Instruction.of("Which film next?", FILMS).prior_logits == (2.0, 0.0)


def test_without_priors_nothing_is_gained_and_the_key_is_as_before() -> None:
    plain = Instruction.of("哪部电影？", ["a", "b"])
    weighted = Instruction.of("哪部电影？", ["a", "b"], prior_weight=0.3)
    assert plain.prior_logits == ()
    assert plain.key == weighted.key == "0b204bdbd2b02d36632fb8e57973b487"


def test_what_changes_the_answer_changes_the_key() -> None:
    keys = {
        Instruction.of("w", [Candidate("a", prior=prior), Candidate("b")], prior_weight=weight).key
        for prior, weight in [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0), (1.0, 0.5)]
    }
    assert len(keys) == 4
    silent = Instruction.of("w", [Candidate("a", prior=3.0), Candidate("b")], prior_weight=0.0)
    assert silent.key == Instruction.of("w", ["a", "b"]).key


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e6])
def test_a_prior_that_is_no_logarithm_is_refused(bad: float) -> None:
    with pytest.raises(PriorInvalid, match="candidate 1"):
        Instruction.of("w", ["a", Candidate("b", prior=bad)])
    with pytest.raises(PriorInvalid, match="weight"):
        Instruction.of("w", ["a"], prior_weight=bad)
    with pytest.raises(ValidationError):
        TaskSpec(priors={"a": bad})


def test_a_task_gives_its_labels_their_priors_and_its_weight() -> None:
    spec = TaskSpec(
        labels=("a", "b"), instructions={"zh": ("选哪个？",)}, priors={"b": -1.0}, prior_weight=2.0
    )
    asked = spec.instruction("t")
    assert (asked.prior_weight, asked.prior_logits) == (2.0, (0.0, -2.0))
