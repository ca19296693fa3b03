"""Seen wordings against the unseen one, by function and in a whole run."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from instructrec_deploy.core.example import Example
from instructrec_deploy.core.instruction import Candidate
from instructrec_deploy.core.manifest import TaskBook, TaskSpec, parse_toml
from instructrec_deploy.core.task import TaskKind
from instructrec_training.objectives.base import CandidateReader
from instructrec_training.objectives.labelled import LabelObjective
from instructrec_training.recipe import Recipe, TrainingPart
from instructrec_training.robustness import (
    LEAST_TEXTS_ANEW,
    MAX_TEXTS,
    MAX_TOKENS_ANEW,
    wording_report,
)
from instructrec_training.rows import Row
from instructrec_training.run import train
from tests.unit.training.test_extract import recipe_of, write_rows

MakeRecipe = Callable[..., Recipe]
SPEC = TaskSpec(
    labels=("a", "b"),
    instructions={"en": ("Good", "Fair"), "zh": ("好",)},
    held_out={"en": "Unseen", "zh": "没见过"},
    lang="zh",
)
ROWS = [Row([1], i % 2, str(i)) for i in range(40)]
SHARES = {"Good": 1.0, "Fair": 0.8, "好": 0.9, "Unseen": 0.5, "没见过": 0.9}


def ask(wordings: Sequence[str], rows: Sequence[Row]) -> list[Tensor]:
    """The first part of the rows right: logits [W, 2] of each row."""
    found = torch.zeros(len(rows), len(wordings), 2)
    for i, row in enumerate(rows):
        for w, wording in enumerate(wordings):
            is_right = i < SHARES[wording] * len(rows)
            found[i, w, row.label if is_right else 1 - row.label] = 1.0
    return list(found)


def report_of(rows: Sequence[Row], how: Callable[..., Sequence[Tensor]] = ask) -> dict[str, Any]:
    return wording_report(SPEC, LabelObjective(SPEC, TrainingPart()), rows, how)


def test_every_wording_has_its_accuracy_and_the_unseen_one_a_gap() -> None:
    report = report_of(ROWS)
    assert report["n"] == 40
    assert report["default"] == {"lang": "zh", "instruction": "好", "accuracy": 0.9}
    assert [line["accuracy"] for line in report["seen"]] == [1.0, 0.8, 0.9]
    english, chinese = report["held_out"]
    assert (english["accuracy"], english["gap"]) == (0.5, pytest.approx(0.4))
    low, high = english["gap_interval"]
    assert 0 < low < 0.4 < high
    assert (chinese["accuracy"], chinese["gap"]) == (0.9, 0)


def test_all_wordings_are_asked_at_once_so_that_texts_are_read_once() -> None:
    asked: list[Sequence[str]] = []

    def watched(wordings: Sequence[str], rows: Sequence[Row]) -> list[Tensor]:
        asked.append(wordings)
        return ask(wordings, rows)

    report_of(ROWS, watched)
    assert asked == [["Good", "Fair", "好", "Unseen", "没见过"]]


def test_many_rows_are_sampled_the_same_for_every_run() -> None:
    seen: list[Sequence[Row]] = []

    def watched(wordings: Sequence[str], rows: Sequence[Row]) -> list[Tensor]:
        seen.append(rows)
        return ask(wordings, rows)

    many = [Row([1], i % 2, str(i)) for i in range(2 * MAX_TEXTS)]
    assert report_of(many, watched)["n"] == MAX_TEXTS
    report_of(many, watched)
    assert seen[0] == seen[1] != many[:MAX_TEXTS]


def test_rows_that_fit_no_label_are_right_where_the_task_says_so() -> None:
    spec = SPEC.model_copy(update={"none_label": "其他", "none_threshold": 0.7})
    rows = [Row([1], 0, "x"), Row([1], 0, "y"), Row([1], -1, "z", is_outside=True)]
    sure, unsure = torch.tensor([9.0, 0.0]), torch.tensor([0.1, 0.0])
    objective = LabelObjective(spec, TrainingPart())
    assert objective.hits(rows, [sure, unsure, unsure]) == [True, False, True]
    assert objective.hits(rows, [sure, sure, sure]) == [True, True, False]


def test_without_rows_there_is_no_report() -> None:
    assert report_of([]) == {}


@pytest.mark.parametrize(("n_chars", "n"), [(0, 60), (40_000, 20), (4_000_000, LEAST_TEXTS_ANEW)])
def test_candidates_that_every_wording_reads_count_as_texts_do(n_chars: int, n: int) -> None:
    spec = SPEC.model_copy(update={"kind": TaskKind.RANKING})
    candidate = Candidate("a", "x" * n_chars)
    rows = [Row([1] * 50, i % 2, str(i), candidates=(candidate,)) for i in range(100)]
    report = wording_report(spec, LabelObjective(SPEC, TrainingPart()), rows, ask)
    assert report["n"] == n


def test_windows_of_a_text_stay_together_when_texts_are_sampled() -> None:
    spec = SPEC.model_copy(update={"kind": "ner"})
    n_fit = 20  # texts of three windows each
    ids = [1] * (MAX_TOKENS_ANEW // (3 * n_fit))
    texts = [Example(text=str(i), target=[]) for i in range(n_fit + 9)]
    windows = [Row(ids, -1, text.text, example=text) for text in texts for _ in range(3)]
    seen: list[Sequence[Row]] = []

    def watched(wordings: Sequence[str], rows: Sequence[Row]) -> list[Tensor]:
        seen.append(rows)
        assert len(wordings) == 1  # the reader reads text and candidates together
        return ask(wordings, [Row([1], 0, "")] * len(rows))

    report = wording_report(spec, LabelObjective(SPEC, TrainingPart()), windows, watched)
    assert report["n"] == n_fit
    own = [row.text for row in seen[0]]
    assert own[::3] == own[1::3] == own[2::3]
    assert len(set(own)) == n_fit


def with_family(recipe: Recipe, **task: Any) -> Recipe:
    plain = recipe.model_dump(mode="json")
    plain["tasks"] = {"intent": {"instructions_from": "intent-banking", **task}}
    return Recipe.model_validate(plain)


def test_a_run_reports_wordings_and_keeps_the_unseen_one_in_its_tasks(
    make_recipe: MakeRecipe, data_root: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    recipe = with_family(make_recipe(epochs=1))
    train(recipe, run, data_root=data_root, is_quiet=True)
    evaluation = json.loads((run / "evaluation.json").read_text(encoding="utf-8"))
    report = evaluation["wordings"]["intent"]
    assert report["n"] == 6
    assert report["default"]["accuracy"] == evaluation["after"]["intent"]["accuracy"]
    assert len(report["seen"]) == sum(map(len, recipe.tasks["intent"].instructions.values()))
    assert [line["lang"] for line in report["held_out"]] == ["en", "zh"]
    book = parse_toml(TaskBook, (run / "tasks.toml").read_text(encoding="utf-8"), where="tasks")
    assert book.tasks["intent"].held_out == recipe.tasks["intent"].held_out


def test_each_wording_is_scored_as_if_it_were_the_default(
    make_recipe: MakeRecipe, data_root: Path, tmp_path: Path
) -> None:
    wordings = ["Which intent?", "余额", "refund", "card lost"]
    recipe = with_family(make_recipe(epochs=0), instructions={"en": wordings}, held_out={})
    train(recipe, tmp_path / "all", data_root=data_root, is_quiet=True)
    lines = json.loads((tmp_path / "all/evaluation.json").read_text())["wordings"]["intent"]["seen"]
    for number, wording in enumerate(wordings):
        alone = with_family(make_recipe(epochs=0), instructions={"en": [wording]}, held_out={})
        report = train(alone, tmp_path / str(number), data_root=data_root, is_quiet=True)
        assert lines[number]["accuracy"] == report.after["intent"]["accuracy"]


def test_training_never_samples_the_unseen_wording(
    make_recipe: MakeRecipe, data_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bool]] = []
    plain = CandidateReader.vectors

    def watched(self: CandidateReader, instruction: str, words: Sequence[str]) -> Any:
        asked.append((instruction, self.model.training))
        return plain(self, instruction, words)

    monkeypatch.setattr(CandidateReader, "vectors", watched)
    recipe = with_family(make_recipe(epochs=20, patience=20))
    train(recipe, tmp_path / "run", data_root=data_root, is_quiet=True)
    spec = recipe.tasks["intent"]
    trained = {wording for wording, is_training in asked if is_training}
    assert trained == {w for group in spec.instructions.values() for w in group}
    assert set(spec.held_out.values()) <= {w for w, is_training in asked if not is_training}


def test_a_head_reads_no_instruction_and_has_no_report(
    make_recipe: MakeRecipe, data_root: Path, tmp_path: Path
) -> None:
    recipe = make_recipe("sequence-classification", epochs=0)
    report = train(recipe, tmp_path / "run", data_root=data_root, is_quiet=True)
    assert report.wordings == {}


@pytest.mark.parametrize(("kind", "headline"), [("ner", "entity_f1"), ("qa", "f1")])
def test_spans_are_found_under_every_wording_and_the_unseen_one_is_never_trained_on(
    kind: str, headline: str, tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bool]] = []
    plain = CandidateReader.memories

    def watched(self: CandidateReader, instruction: str, words: Sequence[str]) -> Any:
        asked.append((instruction, self.model.training))
        return plain(self, instruction, words)

    monkeypatch.setattr(CandidateReader, "memories", watched)
    content = recipe_of(tiny_base, kind).model_dump(mode="json")
    content["tasks"]["t"]["held_out"] = {"en": "Where does it stand?", "zh": "它在哪里"}
    root = write_rows(tmp_path / "data", kind)
    recipe = Recipe.model_validate(content)
    report = train(recipe, tmp_path / "run", data_root=root, is_quiet=True)
    found = report.wordings["t"]
    assert found["default"] == {
        "lang": "en",
        "instruction": "Find it",
        headline: report.after["t"][headline],
    }
    assert [line["instruction"] for line in found["seen"]] == ["Find it", "找出"]
    for seen, unseen in zip(found["seen"], found["held_out"], strict=True):
        assert unseen["gap"] == pytest.approx(seen[headline] - unseen[headline], abs=2e-6)
    trained = {wording for wording, is_training in asked if is_training}
    assert trained == {"Find it", "找出"}
    assert {"Where does it stand?", "它在哪里"} <= {wording for wording, _ in asked}
