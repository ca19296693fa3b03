"""A safety bundle beside the one that answers: heads ask its model."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.errors import BundleError
from instructrec_deploy.core.request import Request
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.runtime.model_checks import ModelChecks
from instructrec_deploy.runtime.pipeline import Pipeline
from instructrec_deploy.runtime.predictor import Predictor
from instructrec_deploy.safety.guard import Guard
from instructrec_deploy.safety.guards import PolicyGuards
from tests.tiny import write_tiny_bundle
from tests.unit.runtime.test_judging import BAD, GOOD, act, guards
from tests.unit.runtime.test_naming import FINDER, PEOPLE


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[tuple[ModelChecks, int]]:
    """Each time a model scored texts for another: which one, and how many texts."""
    found: list[tuple[ModelChecks, int]] = []
    real = ModelChecks.judge

    def judge(self: ModelChecks, jobs: list, *, lane: int = 0) -> None:  # type: ignore[type-arg]
        found.append((self, len(jobs)))
        real(self, jobs, lane=lane)

    monkeypatch.setattr(ModelChecks, "judge", judge)
    return found


def test_its_model_scores_and_the_other_one_answers(
    tiny_bundle: Path, calls: list[tuple[ModelChecks, int]]
) -> None:
    with Predictor(tiny_bundle, guard=act('"flag"')) as alone:
        wanted = alone.predict([BAD, GOOD, "卡丢了 🙂"])
    assert calls == []
    policy = act('"flag"')
    with Predictor(tiny_bundle, guard=policy, safety_bundle=tiny_bundle) as predictor:
        found = predictor.predict([BAD, GOOD, "卡丢了 🙂"])
        assert predictor.pipeline.judged_by is not None
        assert {id(model) for model, _ in calls} == {id(predictor.pipeline.judged_by.checks)}
    assert [one.label for one in found] == [one.label for one in wanted]
    for own, other in zip(wanted, found, strict=True):
        assert [f.category for f in own.verdicts[0].findings] == [
            f.category for f in other.verdicts[0].findings
        ]
        for mine, theirs in zip(own.verdicts[0].findings, other.verdicts[0].findings, strict=True):
            assert theirs.score == pytest.approx(mine.score, abs=1e-4)  # batches differ


def test_it_blocks_and_it_scores_a_text_by_itself(tiny_bundle: Path) -> None:
    opened, policy = open_bundle(tiny_bundle), act('{action = "block", threshold = 0.5}')
    pipeline = Pipeline.open(opened, guard=policy, safety_bundle=opened)
    guard = policy.of(())
    assert pipeline.guarded(BAD, guard).verdict.action == "block"
    assert pipeline.guarded(GOOD, guard).verdict.action == "allow"
    pipeline.close()


def test_where_it_fails_each_head_is_a_check_that_broke(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened, policy = open_bundle(tiny_bundle), act('"flag"')
    pipeline = Pipeline.open(opened, guard=policy, safety_bundle=opened)

    def fail(*args: object, **kwargs: object) -> None:
        raise BundleError("no", hint="no")

    assert pipeline.judged_by is not None
    monkeypatch.setattr(pipeline.judged_by.engine, "encode", fail)
    guard = policy.of(())
    assert isinstance(guard, Guard)
    verdict = pipeline.guarded(GOOD, guard).verdict
    assert [f.category for f in verdict.findings] == ["guard_failure"]
    assert verdict.action == "block"
    pipeline.close()


def test_the_heads_of_its_policy_are_added_to_the_bundle_s_own(
    tiny_bundle: Path, tmp_path: Path
) -> None:
    judge = open_bundle(tiny_bundle)
    copy = tmp_path / "judge"
    shutil.copytree(tiny_bundle, copy)
    (copy / "safety.toml").write_text('[input.heads.sentiment]\nlabel = "negative"\n')
    pipeline = Pipeline.open(judge, safety_bundle=replace(judge, root=copy))
    assert isinstance(pipeline.guard, PolicyGuards)
    assert set(pipeline.guard.policy.input.heads) == {"sentiment"}
    pipeline.close()


def test_the_entities_of_its_policy_are_added_too(tiny_bundle: Path, tmp_path: Path) -> None:
    copy = tmp_path / "judge"
    write_tiny_bundle(copy, tasks_toml=PEOPLE, safety=FINDER)
    judge = open_bundle(copy)
    pipeline = Pipeline.open(open_bundle(tiny_bundle), safety_bundle=judge)
    assert isinstance(pipeline.guard, PolicyGuards)
    assert set(pipeline.guard.policy.input.entities) == {"people"}
    pipeline.close()


def test_a_policy_that_asks_it_nothing_or_what_it_lacks_is_refused(tiny_bundle: Path) -> None:
    opened = open_bundle(tiny_bundle)
    with pytest.raises(BundleError, match="no head"):
        Pipeline.open(opened, safety_bundle=opened)
    with pytest.raises(BundleError, match="no task 'tone'"):
        Pipeline.open(
            opened, guard=guards('[input.heads.tone]\nlabel = "rude"\n'), safety_bundle=opened
        )


def test_texts_that_are_equal_are_read_by_it_once(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_bundle(tiny_bundle)
    pipeline = Pipeline.open(opened, guard=act('"flag"'), safety_bundle=opened)
    pipeline.warm()  # candidates are read, too
    assert pipeline.judged_by is not None
    encode, rows = pipeline.judged_by.engine.encode, list[int]()

    def counted(ids: Any, mask: Any, **how: Any) -> Any:
        rows.append(len(ids))
        return encode(ids, mask, **how)

    monkeypatch.setattr(pipeline.judged_by.engine, "encode", counted)
    found = pipeline.answer([Request.of(text) for text in (BAD, GOOD, BAD)])
    assert rows == [2]
    scores = [one.verdicts[0].findings[0].score for one in found if isinstance(one, Prediction)]
    assert scores[0] == scores[2] > scores[1]
    pipeline.close()
