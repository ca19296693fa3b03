"""The search: it finds what is planted, keeps its budget, and is not fooled by chance."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from instructrec_deploy.core.errors import SearchImpossible
from instructrec_deploy.core.wordings import LANGUAGES, find_family
from instructrec_deploy.evaluation.gains import Floats, Ints
from instructrec_deploy.evaluation.wording_proposals import Proposal, Proposer
from instructrec_deploy.evaluation.wording_search import (
    SearchReport,
    SearchSettings,
    search_wordings,
    split_rows,
)

LABELS = ("anger", "joy", "sadness")
TARGETS = np.random.default_rng(5).integers(0, 3, 300)
Skill = Callable[[Proposal], float]


class FakeModel:
    """Answers a share of the rows right; which ones depends on the wording alone."""

    def __init__(self, skill: Skill, targets: Ints = TARGETS) -> None:
        self.skill = skill
        self.targets = targets
        self.read: list[Proposal] = []
        self.n_scored = 0

    def __call__(self, proposals: Sequence[Proposal], rows: Ints) -> list[Floats]:
        self.read += proposals
        self.n_scored += len(proposals) * len(rows)
        return [self.scores(proposal, rows) for proposal in proposals]

    def scores(self, proposal: Proposal, rows: Ints) -> Floats:
        seed = sum(map(ord, proposal.text + "".join(proposal.words)))
        luck = np.random.default_rng(seed).random(len(self.targets))[rows]
        is_right = luck < self.skill(proposal)
        answers = np.where(is_right, self.targets[rows], (self.targets[rows] + 1) % 3)
        return np.asarray(5.0 * np.eye(3)[answers])


def run(
    model: FakeModel, lang: str = "en", *, seed: int = 0, budget: int = 120, given: str = ""
) -> SearchReport:
    proposer = Proposer(
        "Which one?" if lang == "en" else "哪一个？",
        labels=LABELS,
        family=find_family("emotion").wordings(lang),
        lang=lang,
        given=[given] if given else [],
        seed=seed,
    )
    return search_wordings(model.targets, proposer, model, SearchSettings(budget, seed=seed))


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_planted_wording_of_the_user_is_found_and_confirmed(lang: str) -> None:
    planted = "Say the magic word" if lang == "en" else "说出那个神奇的词"
    report = run(FakeModel(lambda p: 0.95 if p.text == planted else 0.5), lang, given=planted)
    assert report.best.proposal.text == planted
    assert report.chosen is report.best
    assert report.is_confirmed
    assert report.gain.value > 0.3
    assert report.confirm_best == pytest.approx(0.95, abs=0.08)  # 150 rows: 3.5 standard errors


def test_edits_find_what_no_seed_has() -> None:
    """Only a wording of two sentences is good, and no seed has two."""

    def skill(proposal: Proposal) -> float:
        return 0.4 + 0.3 * ("tweet" in proposal.text) + 0.25 * (proposal.text.count(".") > 1)

    report = run(FakeModel(skill), budget=200)
    assert report.best.proposal.origin not in {"default", "family", "grammar"}
    assert skill(report.best.proposal) == pytest.approx(0.95)


def test_a_planted_way_of_putting_the_labels_is_found() -> None:
    report = run(FakeModel(lambda p: 0.9 if p.style == "adjectives" else 0.5))
    assert report.best.proposal.words == ("angry", "happy", "sad")
    assert report.to_dict()["styles"][0]["style"] == "adjectives"


@pytest.mark.parametrize("budget", [2, 3, 20, 77])
def test_the_budget_is_what_is_read_and_no_wording_more(budget: int) -> None:
    model = FakeModel(lambda p: 0.5)
    report = run(model, budget=budget)
    read = {(p.text, p.words) for p in model.read}
    assert len(read) == len(report.tried) == budget


def test_weak_wordings_are_given_up_early() -> None:
    model = FakeModel(lambda p: 0.5, np.resize(TARGETS, 400))
    report = run(model)
    on_every_row = sum(tried.n_rows == report.n_search for tried in report.tried)
    assert on_every_row < len(report.tried) / 3
    assert model.n_scored < 0.7 * len(report.tried) * report.n_search
    assert {tried.n_rows for tried in report.tried} == {50, 100, 200}


def test_no_row_is_scored_twice_while_it_chooses() -> None:
    model = FakeModel(lambda p: 0.5)
    choosing, _ = split_rows(TARGETS, seed=0)
    seen: dict[tuple[str, tuple[str, ...]], list[int]] = {}
    plain = model.scores

    def watched(proposal: Proposal, rows: Ints) -> Floats:
        own = seen.setdefault((proposal.text, proposal.words), [])
        own += [row for row in rows.tolist() if row in set(choosing.tolist())]
        return plain(proposal, rows)

    model.scores = watched  # type: ignore[method-assign]
    run(model)
    assert all(len(set(rows)) == len(rows) for rows in seen.values())


def test_a_wording_that_only_fits_the_choosing_rows_is_not_chosen() -> None:
    choosing, confirming = split_rows(TARGETS, seed=0)
    model = FakeModel(lambda p: 0.5)
    plain = model.scores

    def overfitted(proposal: Proposal, rows: Ints) -> Floats:
        if proposal.text != "Fits by chance":
            return plain(proposal, rows)
        on_choosing = np.isin(rows, choosing)
        return np.asarray(np.eye(3)[np.where(on_choosing, TARGETS[rows], (TARGETS[rows] + 1) % 3)])

    model.scores = overfitted  # type: ignore[method-assign]
    report = run(model, given="Fits by chance")
    assert report.best.proposal.text == "Fits by chance"
    assert report.gain.value < 0
    assert not report.is_confirmed
    assert report.chosen is report.default
    assert report.companions(6)[0] == "Which one?"
    assert len(confirming) == report.n_confirm


def test_where_nothing_is_better_the_default_stays() -> None:
    report = run(FakeModel(lambda p: 0.9 if p.text == "Which one?" and p.style == "own" else 0.4))
    assert report.best is report.default is report.chosen
    assert report.gain.value == 0
    assert not report.is_confirmed


def test_of_equal_accuracy_the_likelier_answers_win() -> None:
    def sure(proposals: Sequence[Proposal], rows: Ints) -> list[Floats]:
        return [
            np.asarray((9.0 if "sure" in p.text else 1.0) * np.eye(3)[TARGETS[rows]])
            for p in proposals
        ]

    proposer = Proposer(
        "Which one?",
        labels=LABELS,
        family=find_family("emotion").wordings("en"),
        lang="en",
        given=["Be sure"],
    )
    report = search_wordings(TARGETS, proposer, sure, SearchSettings(40))
    assert "sure" in report.best.proposal.text
    assert report.best.score == report.default.score == 1


def test_the_same_seed_gives_the_same_report() -> None:
    def facts(seed: int) -> dict[str, object]:
        found = run(FakeModel(lambda p: 0.5 + 0.01 * (len(p.text) % 9)), seed=seed).to_dict()
        return {k: v for k, v in found.items() if k != "seconds"}

    assert facts(3) == facts(3)
    assert facts(3) != facts(4)


def test_the_report_is_plain_data() -> None:
    facts = json.loads(json.dumps(run(FakeModel(lambda p: 0.5)).to_dict()))
    assert facts["n_tried"] == len(facts["wordings"]) == 120
    assert facts["default"]["gain"] == 0
    low, high = facts["confirm"]["gain_interval"]
    assert low <= facts["confirm"]["gain"] <= high


def test_macro_f1_may_count_in_place_of_accuracy() -> None:
    """With one frequent label, a wording that always says it has accuracy but little macro F1."""
    targets = np.array([0] * 90 + [1] * 15 + [2] * 15)

    def score(proposals: Sequence[Proposal], rows: Ints) -> list[Floats]:
        fair = np.where(rows % 4 == 0, (targets[rows] + 1) % 3, targets[rows])
        lazy = np.zeros(len(rows), np.int64)
        return [np.eye(3)[fair if "fair" in p.text else lazy] for p in proposals]

    def best(metric: str) -> str:
        proposer = Proposer(
            "The lazy one",
            labels=LABELS,
            family=find_family("emotion").wordings("en"),
            lang="en",
            given=["A fair one"],
        )
        settings = SearchSettings(20, metric=metric)  # type: ignore[arg-type]
        return search_wordings(targets, proposer, score, settings).best.proposal.text

    assert "fair" in best("macro_f1")
    assert "fair" not in best("accuracy")


@pytest.mark.parametrize(
    "targets", [[0, 1] * 9, [1] * 50, []], ids=["few rows", "one label", "no rows"]
)
def test_rows_that_cannot_tell_wordings_apart_are_refused(targets: list[int]) -> None:
    model = FakeModel(lambda p: 0.5, np.array(targets, np.int64))
    with pytest.raises(SearchImpossible) as caught:
        run(model)
    assert caught.value.code == "IR-1622"
    assert model.read == []


@pytest.mark.parametrize("seed", range(4))
def test_the_halves_are_disjoint_and_have_every_label_alike(seed: int) -> None:
    choosing, confirming = split_rows(TARGETS, seed=seed)
    assert sorted([*choosing, *confirming]) == list(range(len(TARGETS)))
    for half in (choosing, confirming, choosing[:40]):
        shares = np.bincount(TARGETS[half], minlength=3) / len(half)
        assert shares == pytest.approx(np.bincount(TARGETS) / len(TARGETS), abs=0.06)
