"""`instructrec evaluate --safety`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Run

PERSONAL: list[dict[str, Any]] = [
    {"text": "mail ann@example.com", "target": [{"type": "mail", "start": 5, "end": 20}]},
    {"text": "我的手机是13812345678", "target": [{"type": "PHONE", "start": 5, "end": 16}]},
    {"text": "room 12", "target": []},
    {"text": "age 40", "target": [{"type": "age", "start": 4, "end": 6}]},
]
LABELLED = [
    {"text": "negative negative", "target": "bad", "task": "safety"},
    {"text": "i will kill you", "target": "bad", "task": "safety"},
    {"text": "positive positive", "target": "good", "task": "safety"},
]


@pytest.fixture
def personal(tmp_path: Path) -> Path:
    return write(tmp_path / "pii.jsonl", [{**row, "task": "pii"} for row in PERSONAL])


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    return write(tmp_path / "labels.jsonl", LABELLED)


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    return path


def test_the_filter_alone_is_measured_on_personal_data(run: Run, personal: Path) -> None:
    words = ("evaluate", "--safety", "--data", personal, "--rename", "mail=EMAIL")
    (facts,) = run(*words, "--json").rows
    measured = facts["personal_data"]
    assert (measured["f1"], measured["leaked"], measured["n_values"]) == (1, 0, 2)
    assert measured["left_out_types"] == ["age"]
    assert facts["hard_negatives"] == {"n": 1, "hit": 0, "hit_interval": [0, 0]}
    assert facts["policy_version"] == "default-1"
    done = run(*words)
    assert "left out" in done.out
    assert not any(row["text"] in done.out + done.err for row in PERSONAL)


def test_labels_are_measured_by_a_policy_and_the_heads_of_a_bundle(
    run: Run, labelled: Path, tiny_bundle: Path, tmp_path: Path
) -> None:
    policy = tmp_path / "safety.toml"
    policy.write_text('[input.heads.sentiment]\nlabel = "negative"\ncategory = "hate"\n')
    words = ("--safety", "--data", labelled, "--policy", policy, "--abuse-label", "bad", "--json")
    (alone,) = run("evaluate", *words).rows
    assert alone["heads_not_asked"] == ["sentiment"]
    assert (alone["content"]["abuse_found"], alone["content"]["benign_flagged"]) == (0.5, 0)
    assert "auc" not in alone["content"]
    (both,) = run("evaluate", tiny_bundle, *words).rows
    assert both["heads"] == ["sentiment"]
    assert both["content"]["macro_f1"] == 1
    assert both["content"]["auc"] == 1


def test_a_dry_run_is_measured_as_if_in_force(run: Run, tmp_path: Path) -> None:
    rows = [
        {"text": "i will kill you", "target": "good", "task": "safety"},
        {"text": "you idiot", "target": "bad", "task": "safety"},
    ]
    policy = tmp_path / "safety.toml"
    policy.write_text("[input]\ndry_run = true\n")
    words = ("--data", write(tmp_path / "rows.jsonl", rows), "--abuse-label", "bad", "--json")
    (facts,) = run("evaluate", "--safety", "--policy", policy, *words).rows
    assert facts["content"]["benign_blocked"] == 1


@pytest.mark.parametrize(
    "words",
    [
        ("--safety", "--address", "localhost:1"),
        ("--safety", "--instruction", "is it rude"),
        ("--safety", "--rename", "mail"),
        ("--safety", "--rename", "mail=LETTER"),
        ("--abuse-label", "bad"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    run: Run, personal: Path, words: tuple[str, ...]
) -> None:
    done = run("evaluate", "--data", personal, *words)
    assert (done.code, done.out, "hint:" in done.err) == (2, "", True)
