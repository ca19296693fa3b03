"""Rankings are learned with candidates of the row's own, and popularity counts what it should."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.errors import ConfigError, RowInvalid
from instructrec_deploy.core.example import Example
from instructrec_deploy.core.instruction import Candidate
from instructrec_deploy.core.manifest import TaskBook, TaskSpec, parse_toml
from instructrec_deploy.core.request import Question
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.evaluation.evaluate import evaluate_rows
from instructrec_deploy.evaluation.reader import read_examples
from instructrec_deploy.evaluation.requests import read_items, request_of
from instructrec_deploy.export.run import export_run
from instructrec_deploy.runtime.predictor import Predictor, question_of
from instructrec_deploy.text.tokenizer import TextTokenizer
from instructrec_training.catalogue import Catalogue
from instructrec_training.continual import continue_recipe, read_book
from instructrec_training.data import load_task_data
from instructrec_training.objectives.base import CandidateReader
from instructrec_training.objectives.rank import _Batch, fit_ranking
from instructrec_training.recipe import Recipe
from instructrec_training.rows import Row
from instructrec_training.run import train

ITEMS = {
    "1": "lost card",
    "2": "card stolen",
    "3": "my card",
    "4": "查询余额",
    "5": "我的余额",
    "6": "请问余额是什么",
}
TASTES = (("1", "2", "3"), ("4", "5", "6"))
SPEC = TaskSpec(kind=TaskKind.RANKING)


def film(item: str) -> dict[str, Any]:
    return {"item": item, "title": ITEMS[item], "genres": ["new"]}


def row_of(user: int, step: int, split: str) -> dict[str, Any]:
    own = TASTES[user % 2]
    wanted = own[(user + step) % 3]
    history = [film(item) for item in own if item != wanted]
    candidates = sorted(ITEMS) if split == "test" else [wanted, *TASTES[1 - user % 2]]
    return {
        "task": "recommendation",
        "id": f"{user}-{step}",
        "user": str(user),
        "split": split,
        "history": history,
        "candidates": candidates if split == "test" else [film(item) for item in candidates],
        "target": candidates.index(wanted),
    }


@pytest.fixture
def films(tmp_path: Path) -> Path:
    """12 users, English or Chinese, each with two training rows and a test row."""
    rows = [
        row_of(user, step, split)
        for user in range(12)
        for step, split in enumerate(("train", "train", "test"))
    ]
    folder = tmp_path / "data"
    folder.mkdir()
    for name, lines in (("rows", rows), ("items", [film(item) for item in ITEMS])):
        content = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
        (folder / f"{name}.jsonl").write_text(content, encoding="utf-8")
    return folder


def recipe_of(base: Path, **training: Any) -> Recipe:
    settings = {"epochs": 3, "batch_size": 8, "learning_rate": 2e-3, "patience": 3, "seed": 3}
    return Recipe.model_validate(
        {
            "name": "films",
            "model": {"base": str(base), "dropout": 0.0, "use_fusion": False},
            "data": [
                {
                    "path": "rows.jsonl",
                    "items": "items.jsonl",
                    "task": "films",
                    "validation_share": 0.3,
                }
            ],
            "tasks": {"films": {"kind": "ranking", "instructions": {"en": ["Which one next?"]}}},
            "training": settings | training,
        }
    )


def example(user: str, history: list[str], candidates: list[str], target: int) -> Example:
    extra = {"user": user, "history": [film(i) for i in history]}
    extra["candidates"] = [film(i) for i in candidates]
    return Example("", target, extra=extra)


TRAIN = [
    example("a", ["1", "2"], ["3", "4"], 0),
    example("a", ["2", "3"], ["1", "5"], 0),
    example("b", ["1"], ["2", "6"], 0),
]


def test_popularity_counts_users_and_never_the_row_s_own() -> None:
    catalogue = Catalogue.of(TRAIN)
    assert catalogue.counts == {"1": 2, "2": 2, "3": 1}
    wanted, other = catalogue.candidates(TRAIN[0])
    assert (wanted.label, wanted.prior, other.prior) == ("3", 0.0, 0.0)  # a alone chose 3
    stranger = example("c", [], ["1", "3", "6"], 0)
    priors = [candidate.prior for candidate in catalogue.candidates(stranger)]
    assert priors == pytest.approx([math.log(3), math.log(2), 0.0])


def test_counts_that_come_with_the_items_are_not_believed() -> None:
    items = {item: Candidate(item, words, prior=9.0) for item, words in ITEMS.items()}
    catalogue = Catalogue.of(TRAIN, items)
    assert [c.prior for c in catalogue.candidates(TRAIN[2])] == pytest.approx([math.log(2), 0.0])


def test_a_task_s_own_candidates_are_the_most_chosen_that_do_not_read_alike() -> None:
    items = {item: Candidate(item, "Ｍｙ card" if item == "3" else "my CARD") for item in "123"}
    spec = Catalogue.of(TRAIN, items).complete(SPEC)
    assert spec.labels == ("1",)
    assert spec.descriptions == {"1": "my CARD"}
    assert spec.priors == {"1": 1.0986, "2": 1.0986, "3": 0.6931}
    own = SPEC.model_copy(update={"labels": ("2",), "priors": {"2": 4.0}})
    kept = Catalogue.of(TRAIN).complete(own)
    assert (kept.labels, kept.priors["2"]) == (("2",), 4.0)
    assert kept.descriptions == {"2": "card stolen: new"}


def test_a_row_whose_wanted_item_is_no_candidate_is_named(films: Path, tiny_base: Path) -> None:
    row = row_of(0, 0, "train") | {"target": "6", "candidates": [film("1"), film("2")]}
    (films / "rows.jsonl").write_text(json.dumps(row), encoding="utf-8")
    with pytest.raises(RowInvalid, match=r"'0-0'.*not among its candidates"):
        load_task_data(recipe_of(tiny_base), films, tokenizer_of(tiny_base))


def test_all_rows_of_a_user_are_trained_on_or_none(films: Path, tiny_base: Path) -> None:
    (task,) = load_task_data(recipe_of(tiny_base), films, tokenizer_of(tiny_base))
    users = [
        {row.example.extra["user"] for row in rows if row.example}
        for rows in (task.train, task.validation)
    ]
    assert users[0]
    assert users[1]
    assert users[0].isdisjoint(users[1])


def tokenizer_of(base: Path) -> TextTokenizer:
    return TextTokenizer(base / "tokenizer.json", max_tokens=64)


def test_a_batch_lends_a_row_the_unwanted_candidates_of_others() -> None:
    a, b, c = (Candidate(label, prior=1.0) for label in "abc")
    d = Candidate("d", prior=2.0)
    rows = [
        Row([1], -1, "", (0,), candidates=(a, b), seen=frozenset("ax")),
        Row([1], -1, "", (1,), candidates=(c, d), seen=frozenset("db")),
        Row([1], -1, "", (0, 1), candidates=(Candidate("b"), Candidate("e", prior=3.0))),
    ]
    batch = _Batch(rows)
    labels = [candidate.label for candidate in batch.candidates]
    is_open = {
        (i, label) for i in range(3) for label in labels if batch.is_open[i, labels.index(label)]
    }
    # c and b are unwanted somewhere; row 1 has chosen b; a, d and e were wanted by others
    assert is_open == {(0, "a"), (0, "b"), (0, "c"), (1, "c"), (1, "d"), *((2, x) for x in "bec")}
    assert batch.priors[0, labels.index("b")] == 1.0
    assert batch.priors[2, labels.index("b")] == 0.0  # as its own row says
    assert batch.wanted[2, labels.index("e")] == 0.5
    assert batch.wanted.sum(1).tolist() == [1.0, 1.0, 1.0]


def test_temperature_and_weight_are_found_again_where_they_made_the_choices() -> None:
    torch.manual_seed(0)
    outputs = [torch.randn(2, 3 + i % 4) for i in range(4_000)]
    chosen = [
        int(torch.multinomial(torch.softmax((o[0] + 0.6 * o[1]) / 0.5, 0), 1)) for o in outputs
    ]
    temperature, weight = fit_ranking(outputs, [(i,) for i in chosen], is_scaled=True)
    assert temperature == pytest.approx(0.5, abs=0.05)  # about two standard errors
    assert weight == pytest.approx(0.6, abs=0.06)
    silent = [torch.stack([o[0], torch.zeros(o.shape[1])]) for o in outputs]
    assert fit_ranking(silent, [(i,) for i in chosen], is_scaled=False) == (1.0, 0.0)


def test_a_ranking_is_learned_exported_and_answered_as_it_was_measured(
    films: Path, tiny_base: Path, tmp_path: Path
) -> None:
    report = train(recipe_of(tiny_base), tmp_path / "run", data_root=films, is_quiet=True)
    before, after = report.before["films"], report.after["films"]
    assert after["ndcg@10"] > max(before["ndcg@10"], after["popularity_only_ndcg@10"])
    assert {"hr@10", "hr@10_interval", "text_only_hr@10", "prior_weight"} <= after.keys()
    text = (tmp_path / "run" / "tasks.toml").read_text(encoding="utf-8")
    spec = parse_toml(TaskBook, text, where="tasks.toml").tasks["films"]
    assert set(spec.labels) == set(spec.priors) == set(ITEMS)
    assert spec.prior_weight != 0.0

    bundle = open_bundle(export_run(tmp_path / "run", tmp_path / "bundle", precision="fp32").out)
    items = read_items(films / "items.jsonl")
    rows = read_examples(films / "rows.jsonl", "test")

    def ask(candidates: tuple[Candidate, ...]) -> Question:
        return question_of(bundle, task="films", candidates=candidates)

    with Predictor(bundle) as predictor:
        served = evaluate_rows(
            rows,
            lambda part: predictor.predict_requests(
                [request_of(row, ask=ask, items=items, top_k=0) for row in part]
            ),
            candidates=[],
        )
        own = predictor.predict("lost card: new", task="films", top_k=0)
        liked = [Candidate("7", "my card", 40.0), Candidate("8", "余额")]
        known = predictor.predict("我的余额: new", task="films", candidates=liked)
    for name in ("hr@1", "ndcg@10", "mrr"):
        assert served.figures.values[name].value == pytest.approx(after[name], abs=1e-6)
    assert len(own.answers[0].scores) == len(ITEMS)
    wanted = "7" if spec.prior_weight > 0 else "8"
    assert known.label == wanted


def test_candidates_are_read_once_while_no_weight_changes(
    films: Path, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    own = CandidateReader.vectors

    def vectors(self: CandidateReader, wording: str, words: Sequence[str]) -> torch.Tensor:
        read.extend(words)
        return own(self, wording, words)

    monkeypatch.setattr(CandidateReader, "vectors", vectors)
    monkeypatch.setattr("instructrec_training.run.wording_report", lambda *_: {})
    train(recipe_of(tiny_base, epochs=0), tmp_path / "run", data_root=films, is_quiet=True)
    before_and_after = 2
    assert sorted(read) == sorted([*set(read)] * before_and_after)


def test_a_run_of_rankings_is_not_retuned_on_corrections(
    films: Path, tiny_base: Path, tmp_path: Path
) -> None:
    recipe, run = recipe_of(tiny_base, epochs=0), tmp_path / "run"
    train(recipe, run, data_root=films, is_quiet=True)
    with pytest.raises(ConfigError, match="cannot be retuned yet"):
        continue_recipe(recipe, run, read_book(run))


@pytest.mark.parametrize(
    ("part", "change", "words"),
    [
        ("model", {"kind": "sequence-classification"}, "needs an instruction-encoder"),
        ("data", [{"path": "r", "task": "films", "shots": 4}], "shots counts rows of a label"),
    ],
)
def test_what_a_ranking_cannot_use_is_told(
    tiny_base: Path, part: str, change: Any, words: str
) -> None:
    raw = recipe_of(tiny_base).model_dump() | {part: change}
    with pytest.raises(ValidationError, match=words):
        Recipe.model_validate(raw)
