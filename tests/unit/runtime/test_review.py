"""The review queue: what gets in, masked; once; decided for good; out again as training rows."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from instructrec_deploy.core.errors import CaseUnknown, FileMissing, ReviewFull, ReviewUnusable
from instructrec_deploy.core.request import Request
from instructrec_deploy.core.result import Answer, Finding, Prediction, Verdict
from instructrec_deploy.runtime.feedback_store import FeedbackStore
from instructrec_deploy.runtime.review_intake import cases_of
from instructrec_deploy.runtime.review_store import Case, Decision, ReviewStore, training_row
from instructrec_deploy.safety.guard import Guard
from instructrec_deploy.safety.guards import PolicyGuards

POLICY = """
version = "7"
[input]
review = ["block"]
[tasks.trial.input]
dry_run = true
[tasks.kept.input.operators]
PHONE = "replace"
"""
TEXT = "打13812345678, I will kill you"
MASKED = "打[PHONE], I will kill you"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "review.db"


@pytest.fixture
def store(file: Path) -> Iterator[ReviewStore]:
    with ReviewStore.open(file, create=True) as opened:
        yield opened


def asked(text: str, task: str = "intent", text2: str = "") -> list[Case]:
    guards = PolicyGuards.from_toml(POLICY, where="safety.toml")
    guard = guards.of((task,), "shop")
    verdicts = (guard.check_input(text).verdict,)
    if text2:
        verdicts += (guard.check_input(text2).verdict,)
    prediction = Prediction((Answer(task, "", 0.0, ()),), verdicts=verdicts, model="m")
    return list(cases_of(Request(text, text2=text2, tenant="shop"), prediction, guards))


def test_a_case_has_its_text_with_personal_data_masked_and_spans_that_fit_it() -> None:
    (case,) = asked(TEXT)
    assert (case.text, case.action, case.policy_version) == (MASKED, "block", "7")
    assert (case.categories, case.caller, case.tasks) == (("PHONE", "threat"), "shop", ("intent",))
    spans = {f["category"]: case.text[f["start"] : f["end"]] for f in case.findings}
    assert spans == {"PHONE": "[PHONE]", "threat": "I will kill you"}
    assert "13812345678" not in repr(case)


def test_a_dry_run_keeps_nothing_unmasked_and_operators_hold() -> None:
    assert [case.text for case in asked(TEXT, "kept")] == [MASKED.replace("[PHONE]", "<PHONE_1>")]
    (case,) = asked(TEXT, "trial")
    assert (case.text, case.action, case.dry_run_action) == (MASKED, "flag", "block")


def test_what_nobody_asked_to_review_is_no_case() -> None:
    assert asked("打13812345678") == []
    assert asked("fine") == []


def test_without_a_policy_to_mask_by_no_text_is_kept() -> None:
    verdict = Verdict("flag", (Finding("threat", "r", "flag", 0, 3, review=True),), "v")
    cases = cases_of(Request(TEXT), Prediction((), verdicts=(verdict,)), Guard())
    assert [case.text for case in cases] == [""]


def test_the_same_case_is_kept_once_and_counted(store: ReviewStore, file: Path) -> None:
    assert [store.add(case) for _ in range(3) for case in asked(TEXT)] == [True, False, False]
    (kept,) = store.cases()
    assert (kept.n_seen, kept.status, kept.case.text) == (3, "open", MASKED)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_decisions_stay_and_the_last_one_counts(store: ReviewStore, file: Path) -> None:
    (case,) = asked(TEXT)
    store.add(case)
    store.decide(case.id[:8], Decision("approved", case.categories, "李雷"))
    store.decide(case.id, Decision("corrected", (), "Ann", "a quotation"))
    with ReviewStore.open(file) as again:
        kept = again.case(case.id)
    assert kept.case == case
    assert [(one.verdict, one.by) for one in kept.decisions] == [
        ("approved", "李雷"),
        ("corrected", "Ann"),
    ]
    assert [k.status for k in store.cases(status="corrected")] == ["corrected"]
    assert list(store.cases(status="open")) == []


@pytest.mark.parametrize("id", ["", "zz", "%"])
def test_an_unknown_case_is_told(store: ReviewStore, id: str) -> None:
    store.add(Case("a", ("threat",), id="ab1"))
    with pytest.raises(CaseUnknown):
        store.case(id)


def test_an_id_that_two_cases_share_is_told(store: ReviewStore) -> None:
    store.add(Case("a", ("threat",), id="ab1"))
    store.add(Case("b", ("threat",), id="ab2"))
    with pytest.raises(CaseUnknown, match="more than one"):
        store.case("ab")
    assert store.case("ab2").case.text == "b"


def test_a_full_queue_takes_no_more_but_counts_known_cases(file: Path) -> None:
    with ReviewStore.open(file, create=True, max_rows=1) as store:
        assert store.add(Case("a", ()))
        with pytest.raises(ReviewFull):
            store.add(Case("b", ()))
        assert not store.add(Case("a", ()))


def test_other_files_are_no_queues(tmp_path: Path, file: Path) -> None:
    with pytest.raises(FileMissing):
        ReviewStore.open(file)
    other = tmp_path / "feedback.db"
    FeedbackStore.open(other, create=True).close()
    with pytest.raises(ReviewUnusable, match="no review queue"):
        ReviewStore.open(other)
    other.write_text("no database " * 100)
    with pytest.raises(ReviewUnusable):
        ReviewStore.open(other)


def test_decided_cases_become_rows_of_content(store: ReviewStore) -> None:
    decided = [
        (Case("a 😀", ("PHONE", "threat")), Decision("approved", ("PHONE", "threat"))),
        (Case("b", ("threat",)), Decision("corrected", ())),
        (Case("c", ("PHONE",)), Decision("approved", ("PHONE",))),
        (Case("d", ("PHONE",)), Decision("corrected", ("harassment",))),
        (Case("", ("threat",)), Decision("approved", ("threat",))),
    ]
    store.add(Case("open", ("threat",)))
    for case, decision in decided:
        store.add(case)
        store.decide(case.id, decision)
    rows = [row for kept in store.cases() if (row := training_row(kept, {"PHONE"}))]
    assert [(row["text"], row["target"], row["predicted"]) for row in rows] == [
        ("a 😀", ["threat"], ["threat"]),
        ("b", [], ["threat"]),
        ("d", ["harassment"], []),
    ]
    json.dumps(rows)
