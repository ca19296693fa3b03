"""`instructrec evaluate` in process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from instructrec_deploy.cli.asking import LocalAsker, Outcome
from instructrec_deploy.core.errors import Unavailable
from instructrec_deploy.core.request import Request
from instructrec_deploy.runtime.predictor import Predictor
from tests.unit.cli.conftest import Run

ROWS = [
    {"text": "I lost my card", "target": "card lost", "split": "test"},
    {"text": "refund please", "target": "refund", "split": "test"},
    {"text": "余额查询", "target": "余额", "split": "test"},
    {"text": "change my pin", "target": "something else", "split": "test"},
    {"text": "refund", "target": "refund", "split": "train"},
]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS))
    return path


def test_json_has_the_promised_figures(run: Run, tiny_bundle: Path, data: Path) -> None:
    done = run("evaluate", tiny_bundle, "--data", data, "--json")
    (facts,) = done.rows
    assert facts["n"] == 4
    assert facts["accuracy"] == 0.75
    low, high = facts["accuracy_interval"]
    assert low <= 0.75 <= high
    assert 0 < facts["macro_f1"] < 1
    assert facts["n_gold_outside_candidates"] == 1
    assert facts["n_candidates"] == 7
    assert done.err == ""


def test_json_of_labels_has_calibration_figures(run: Run, tiny_bundle: Path, data: Path) -> None:
    (facts,) = run("evaluate", tiny_bundle, "--data", data, "--json").rows
    assert facts["kind"] == "classification"
    assert 0 < facts["ece"] < 1
    assert 0 < facts["brier"] < 1
    low, high = facts["ece_interval"]
    assert low <= facts["ece"] <= high


def test_rows_that_fit_no_candidate_are_named_by_an_option(
    run: Run, tiny_bundle: Path, data: Path
) -> None:
    words = ("evaluate", tiny_bundle, "--data", data, "--none-label", "something else")
    (facts,) = run(*words, "--json").rows
    assert facts["n_gold_outside_candidates"] == 0
    assert (facts["n_out_of_scope"], facts["n_abstained"], facts["oos_recall"]) == (1, 0, 0)
    assert facts["in_scope_accuracy"] == 1
    assert "out-of-scope recall" in run(*words).out


def test_rankings_are_measured_with_every_score(
    run: Run, tiny_bundle: Path, tmp_path: Path
) -> None:
    path = tmp_path / "ranking.jsonl"
    rows = [
        {"text": "refund please", "target": "refund", "task": "ranking"},
        {"text": "余额查询", "target": ["余额", "refund"], "task": "ranking"},
    ]
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    (facts,) = run("evaluate", tiny_bundle, "--data", path, "--json").rows
    assert (facts["kind"], facts["n"], facts["hr@10"], facts["hr@1"]) == ("ranking", 2, 1, 1)
    assert facts["n_relevant_unranked"] == 0
    assert 0 < facts["ndcg@10"] <= 1
    assert "NDCG@10" in run("evaluate", tiny_bundle, "--data", path).out


def test_rows_of_generated_text_are_refused(run: Run, tiny_bundle: Path, tmp_path: Path) -> None:
    path = tmp_path / "translation.jsonl"
    path.write_text('{"text": "hello", "target": ["你好"], "task": "translation"}')
    done = run("evaluate", tiny_bundle, "--data", path)
    assert (done.code, "IR-1109" in done.err, "hint:" in done.err) == (2, True, True)


def test_a_negative_limit_is_refused(run: Run, tiny_bundle: Path, data: Path) -> None:
    assert "IR-1602" in run("evaluate", tiny_bundle, "-d", data, "--limit", -1).err


def test_a_server_that_goes_away_midway_leaves_no_figure(
    run: Run, tiny_bundle: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = LocalAsker.ask

    def ask(self: LocalAsker, requests: Sequence[Request]) -> list[Outcome]:
        answers = real(self, requests)
        return answers if len(answers) == 1 else [*answers[:2], *[Unavailable("gone")] * 2]

    monkeypatch.setattr(LocalAsker, "ask", ask)
    done = run("evaluate", tiny_bundle, "--data", data)
    assert (done.code, done.out) == (4, "")


def test_the_table_warns_of_labels_outside(run: Run, tiny_bundle: Path, data: Path) -> None:
    done = run("evaluate", tiny_bundle, "--data", data)
    assert "75.00%" in done.out
    assert "1 rows have a label that is not among the candidates" in done.out


def test_labels_come_from_the_data_or_a_file(
    run: Run, tiny_bundle: Path, data: Path, tmp_path: Path
) -> None:
    done = run("evaluate", tiny_bundle, "--data", data, "--labels-from", "data", "--json")
    assert done.rows[0]["n_candidates"] == 4
    assert done.rows[0]["n_gold_outside_candidates"] == 0
    labels = tmp_path / "labels.txt"
    labels.write_text("refund\n余额\n\nrefund\n")
    words = ("--labels-from", labels, "--instruction", "What is it about?", "--json")
    assert run("evaluate", tiny_bundle, "--data", data, *words).rows[0]["n_candidates"] == 2


def test_split_and_limit_choose_rows(run: Run, tiny_bundle: Path, data: Path) -> None:
    count = lambda *words: run("evaluate", tiny_bundle, "-d", data, "--json", *words).rows[0]["n"]  # noqa: E731
    assert count("--split", "all") == 5
    assert count("--split", "train") == 1
    assert count("--limit", 2) == 2


def test_a_head_bundle_is_evaluated_alike(run: Run, tiny_head_bundle: Path, data: Path) -> None:
    assert run("evaluate", tiny_head_bundle, "--data", data, "--json").rows[0]["n"] == 4


def test_faults_of_the_command_line_have_hints(
    run: Run, tiny_bundle: Path, data: Path, tmp_path: Path
) -> None:
    cases = [
        (("evaluate", tiny_bundle), 2, "IR-1600"),
        (("evaluate", "--data", data), 2, "IR-1600"),
        (("evaluate", tiny_bundle, "--data", tmp_path / "no.jsonl"), 3, "IR-1203"),
        (("evaluate", tiny_bundle, "--data", "shipped:no.jsonl"), 3, "IR-1203"),
        (("evaluate", tiny_bundle, "--data", data, "--split", "dev"), 2, "IR-1109"),
        (("evaluate", tiny_bundle, "--data", data, "--task", "nope"), 3, "IR-1201"),
        (("evaluate", "-a", "127.0.0.1:1", "--data", data), 4, "IR-1302"),
    ]
    for words, code, name in cases:
        done = run(*words)
        assert (done.code, name in done.err, "hint:" in done.err) == (code, True, True), words


def test_shipped_data_is_found_by_name(run: Run, tiny_bundle: Path) -> None:
    name = "shipped:customer_service/zh_intents.jsonl"
    words = ("--labels-from", "data", "--instruction", "顾客要什么？", "--limit", 4, "--json")
    done = run("evaluate", tiny_bundle, "--data", name, *words)
    assert (done.rows[0]["n"], done.rows[0]["n_candidates"]) == (4, 12)


def test_pairs_and_relations_are_asked_with_all_they_bring(
    run: Run, tiny_bundle: Path, tmp_path: Path
) -> None:
    with Predictor(tiny_bundle) as predictor:
        pair = predictor.predict("my card", text2="余额查询").label
        marked = predictor.predict("我的 card pin", head=(0, 2), tail=(8, 11)).label
    rows = [
        {"text": "my card", "text2": "余额查询", "target": pair},
        {"text": "我的 card pin", "head": [0, 2], "tail": [8, 11], "target": marked},
    ]
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    assert run("evaluate", tiny_bundle, "--data", path, "--json").rows[0]["accuracy"] == 1.0


def test_rows_choose_among_candidates_of_their_own(
    run: Run, tiny_bundle: Path, tmp_path: Path
) -> None:
    rows = [
        {"text": "my card", "candidates": ["1", "2"], "target": "1"},
        {"text": "余额", "candidates": ["3", "1"], "target": "3"},
        {"history": ["pin", {"title": "refund"}], "candidates": ["2", "4"], "target": "4"},
    ]
    films = [
        {"item": "1", "title": "card"},
        {"item": "2", "title": "pin", "popularity": 5},
        {"item": "3", "title": "余额"},
        {"item": "4", "title": "good", "prior": 100},
    ]
    data, items = tmp_path / "rows.jsonl", tmp_path / "films.jsonl"
    data.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    items.write_text("\n".join(json.dumps(film, ensure_ascii=False) for film in films))
    words = ("evaluate", tiny_bundle, "--data", data, "-i", "Which film?", "--json")
    assert run(*words, "--items", items).rows[0]["accuracy"] == 1.0
    for more, word in (((), "--items FILE"), (("--items", tmp_path / "no.jsonl"), "no data file")):
        done = run(*words, *more)
        assert (done.code != 0, word in done.err) == (True, True)
