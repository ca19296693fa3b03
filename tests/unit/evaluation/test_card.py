"""The card says what a reader needs, and nothing it does not know."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from instructrec_deploy.core.bundle import Bundle, open_bundle
from instructrec_deploy.evaluation.card import write_card

PARITY = {
    "n_texts": 64,
    "agreement": 0.984375,
    "max_difference": 0.05,
    "mean_difference": 0.01,
    "batch_difference": 0.0,
}


@pytest.fixture
def bundle(tiny_bundle: Path) -> Bundle:
    return open_bundle(tiny_bundle)


def card(bundle: Bundle, **evaluation: Any) -> str:
    return write_card(bundle.manifest, bundle.tasks, evaluation)


def test_the_card_names_tasks_labels_and_both_languages(bundle: Bundle) -> None:
    text = card(bundle)
    assert "intent (default)" in text
    assert "转账失败" in text
    assert "en, zh" in text


def test_without_an_evaluation_the_card_says_so(bundle: Bundle) -> None:
    assert "Not measured" in card(bundle)


def test_each_figure_stands_beside_its_interval_and_the_untuned_one(bundle: Bundle) -> None:
    figures = {"n": 84, "accuracy": 0.774, "accuracy_interval": [0.69, 0.857], "macro_f1": 0.779}
    text = card(
        bundle,
        before={"intent": {"accuracy": 0.619}},
        after={"intent": figures},
        split={"intent": "test"},
    )
    assert "| intent | test | 84 | accuracy | 0.619 | 0.774 [0.690, 0.857] |" in text
    assert "| intent | test | 84 | macro F1 | - | 0.779 |" in text
    assert "calibration error" not in text


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("entity_f1", "entity F1"),
        ("exact_match", "exact match"),
        ("f1", "F1"),
        ("hr@10", "HR@10"),
        ("ndcg@10", "NDCG@10"),
        ("micro_f1", "micro F1"),
        ("oos_recall", "out-of-scope recall"),
        ("ece", "calibration error"),
    ],
)
def test_a_task_shows_the_figures_of_its_kind(bundle: Bundle, name: str, words: str) -> None:
    told = {"n": 9, name: 0.5, f"{name}_interval": [0.4, 0.6]}
    text = card(bundle, before={"任务": {name: 0.25}}, after={"任务": told})
    assert f"| 任务 |  | 9 | {words} | 0.250 | 0.500 [0.400, 0.600] |" in text
    assert "Accuracy" not in text
    assert ("less is better" in text) == (name == "ece")


def test_parity_is_told_in_words_with_the_tolerance(bundle: Bundle) -> None:
    text = card(bundle, export={"parity": PARITY, "has_own_samples": True})
    assert "On 64 texts" in text
    assert "98.4%" in text
    assert "texts of the training data" in text


def test_a_bar_in_a_label_does_not_break_the_table(bundle: Bundle) -> None:
    spec = bundle.tasks.tasks["intent"].model_copy(update={"labels": ("a|b", "c\nd")})
    book = bundle.tasks.model_copy(update={"tasks": {"intent": spec}})
    assert "a\\|b, c d |" in write_card(bundle.manifest, book, {})


def test_the_card_tells_which_tasks_may_find_several_labels_or_none(bundle: Bundle) -> None:
    assert "It always picks one" in card(bundle)
    several = {"decision": "any"}
    tasks = {
        name: spec.model_copy(update=several if name == "sentiment" else {"none_label": "其他"})
        for name, spec in bundle.tasks.tasks.items()
    }
    book = bundle.tasks.model_copy(update={"tasks": tasks})
    text = write_card(bundle.manifest, book, {})
    assert "a probability of its own: sentiment." in text
    assert "nothing fits: intent, sentiment." in text
    assert "always picks" not in text


def test_headings_and_tables_are_parted_by_empty_lines(bundle: Bundle) -> None:
    lines = card(bundle, export={"parity": PARITY}).split("\n")
    for above, line in itertools.pairwise(lines):
        assert not (above.startswith("#") and line)
        assert not (line.startswith("#") and above)
