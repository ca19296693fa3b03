"""Content heads: a task of the bundle scores what the model reads, and the policy acts on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.errors import BundleError
from instructrec_deploy.core.request import Mark, Question, Request
from instructrec_deploy.runtime.pipeline import Pipeline
from instructrec_deploy.runtime.predictor import Predictor
from instructrec_deploy.safety.guard import Guard
from instructrec_deploy.safety.guards import PolicyGuards

HEAD = '[input.heads.sentiment]\nlabel = "negative"\ncategory = "hate"\n'
BAD, GOOD = "negative negative", "positive positive"


def guards(toml: str) -> PolicyGuards:
    return PolicyGuards.from_toml(toml, where="safety.toml")


def act(steps: str) -> PolicyGuards:
    return guards(f"{HEAD}act = {steps}\n")


def test_a_head_flags_what_its_task_scores_high_and_nothing_else(tiny_bundle: Path) -> None:
    with Predictor(tiny_bundle, guard=guards(HEAD)) as predictor:
        bad, good = predictor.predict([BAD, GOOD])
    (finding,) = bad.verdicts[0].findings
    assert (finding.category, finding.rule, finding.action) == ("hate", "task sentiment", "flag")
    assert (finding.start, finding.end) == (-1, -1)
    assert 0.5 <= finding.score <= 1
    assert (bad.verdicts[0].action, bad.label != "") == ("flag", True)
    assert good.verdicts[0].findings == ()


def test_the_score_is_the_one_that_the_task_itself_gives(tiny_bundle: Path) -> None:
    with Predictor(tiny_bundle, guard=act('{action = "flag", threshold = 0.0}')) as predictor:
        found = predictor.predict(BAD, task="sentiment", top_k=0)
    asked = {score.label: score.score for score in found.answers[0].scores}
    assert found.verdicts[0].findings[0].score == pytest.approx(asked["negative"], abs=1e-6)


def test_a_head_that_blocks_keeps_the_answer_back(tiny_bundle: Path) -> None:
    with Predictor(tiny_bundle, guard=act('"block"')) as predictor:
        found = predictor.predict(BAD)
    assert (found.verdicts[0].action, found.label) == ("block", "")


def test_what_the_list_finds_and_what_a_head_says_stand_side_by_side(tiny_bundle: Path) -> None:
    with Predictor(tiny_bundle, guard=act('"flag"')) as predictor:
        found = predictor.predict(f"{BAD} fuck, call 13812345678")
    categories = [finding.category for finding in found.verdicts[0].findings]
    assert categories == ["profanity", "PHONE", "hate"]
    assert found.verdicts[0].action == "mask"
    assert found.text.endswith("[PHONE]")


@pytest.mark.parametrize(("text", "lang", "is_asked"), [(BAD, "zh", False), ("讨厌", "zh", True)])
def test_a_head_reads_only_its_own_language(
    tiny_bundle: Path, text: str, lang: str, is_asked: bool
) -> None:
    policy = guards(f'{HEAD}lang = "{lang}"\nact = "flag"\n')
    with Predictor(tiny_bundle, guard=policy) as predictor:
        assert bool(predictor.predict(text).verdicts[0].findings) == is_asked


def test_heads_of_one_task_each_have_a_label_and_a_step_of_their_own(tiny_bundle: Path) -> None:
    policy = guards(
        '[input.heads.bad]\ntask = "sentiment"\nlabel = "negative"\ncategory = "hate"\n'
        '[input.heads.good]\ntask = "sentiment"\nlabel = "positive"\ncategory = "sexual"\n'
        'act = {action = "flag", threshold = 0.0}\n'
    )
    with Predictor(tiny_bundle, guard=policy) as predictor:
        bad, good = predictor.predict([BAD, GOOD])
    told = [[(f.category, f.rule) for f in one.verdicts[0].findings] for one in (bad, good)]
    assert told == [[("hate", "head bad"), ("sexual", "head good")], [("sexual", "head good")]]
    scores = [finding.score for finding in bad.verdicts[0].findings]
    assert sum(scores) == pytest.approx(1.0, abs=1e-5)


def test_a_dry_run_tells_what_a_head_would_have_done(tiny_bundle: Path) -> None:
    policy = guards(f'[input]\ndry_run = true\n{HEAD}act = "block"\n')
    with Predictor(tiny_bundle, guard=policy) as predictor:
        found = predictor.predict(BAD)
    assert found.label != ""
    assert found.verdicts[0].action == "flag"
    assert found.verdicts[0].findings[0].dry_run_action == "block"


def test_marks_and_pairs_do_not_hinder_a_head(tiny_bundle: Path) -> None:
    pipeline = Pipeline.open(open_bundle(tiny_bundle), guard=act('"flag"'))
    pair = Request(BAD, (Question(),), text2="the card is lost")
    marked = Request("I lost my card", (Question(),), head=Mark(2, 6), tail=Mark(10, 14))
    for outcome in pipeline.answer([pair, marked]):
        assert "hate" in [f.category for f in outcome.verdicts[0].findings]  # type: ignore[union-attr]
    pipeline.close()


@pytest.mark.parametrize(
    ("head", "fault"),
    [
        ('[input.heads.tone]\nlabel = "rude"\n', "no task 'tone'"),
        ('[input.heads.sentiment]\nlabel = "rude"\n', "task 'sentiment' has no label 'rude'"),
    ],
)
def test_a_head_that_the_bundle_does_not_have_is_refused_at_the_start(
    tiny_bundle: Path, head: str, fault: str
) -> None:
    with pytest.raises(BundleError, match=fault):
        Pipeline.open(open_bundle(tiny_bundle), guard=guards(head))


@pytest.mark.parametrize(
    "toml",
    [
        '[input.heads.sentiment]\nlabel = "negative"\nact = "mask"\n',
        '[output.heads.sentiment]\nlabel = "negative"\n',
        '[input.heads.sentiment]\nlabel = "negative"\ncategory = "rudeness"\n',
        "[input.heads.sentiment]\n",
    ],
)
def test_a_head_that_makes_no_sense_is_refused(toml: str) -> None:
    with pytest.raises(BundleError):
        guards(toml)


@pytest.mark.parametrize(("fail", "action"), [("closed", "block"), ("open", "flag")])
def test_a_head_that_cannot_be_asked_any_more_is_a_check_that_broke(
    tiny_bundle: Path, fail: str, action: str
) -> None:
    policy = guards(HEAD)
    pipeline = Pipeline.open(open_bundle(tiny_bundle), guard=policy)
    gone = guards(f'[input]\nfail = "{fail}"\n[input.heads.gone]\nlabel = "x"\n')
    policy.replace(gone.policy)  # as a file that changed while serving
    (outcome,) = pipeline.answer([Request(BAD, (Question(),))])
    verdict = outcome.verdicts[0]  # type: ignore[union-attr]
    assert (verdict.action, verdict.findings[-1].category) == (action, "guard_failure")
    pipeline.close()


def test_a_task_may_have_a_head_of_its_own_and_the_strictest_counts() -> None:
    policy = guards(
        f'{HEAD}[tasks.intent.input.heads.sentiment]\nlabel = "negative"\nact = "block"\n'
    ).policy
    assert policy.resolved(("intent",)).input.heads["sentiment"].act[0].action == "block"
    assert policy.resolved(("sentiment",)).input.heads["sentiment"].act[0].action == "flag"
    both = policy.resolved(("intent", "sentiment")).input.heads["sentiment"].act
    assert {step.action for step in both} == {"block"}


def test_a_text_by_itself_is_judged_too(tiny_bundle: Path) -> None:
    policy = guards(HEAD)
    pipeline = Pipeline.open(open_bundle(tiny_bundle), guard=policy)
    guarded = pipeline.guarded(BAD, policy.of(("",)))
    assert (guarded.text, guarded.verdict.action) == (BAD, "flag")
    assert pipeline.guarded(GOOD, Guard()).verdict.action == "allow"
    pipeline.close()
