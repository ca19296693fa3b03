"""`instructrec review`: list, look, decide, export."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from instructrec_deploy.runtime.review_store import Case, ReviewStore
from tests.unit.cli.conftest import Run


@pytest.fixture
def queue(tmp_path: Path) -> Path:
    file = tmp_path / "review.db"
    with ReviewStore.open(file, create=True) as store:
        store.add(Case("canary 我要投诉", ("threat",), action="block", id="aa1" + "0" * 29))
        store.add(Case("canary two", ("profanity",), action="flag", id="bb2" + "0" * 29))
    return file


def test_cases_are_listed_without_texts_and_shown_with_them(run: Run, queue: Path) -> None:
    listed = run("review", "list", queue)
    assert (listed.code, listed.out.count("\n")) == (0, 2)
    assert "canary" not in listed.out + run("review", "list", queue, "--json").out
    assert [row["id"][:3] for row in run("review", "list", queue, "--json").rows] == ["aa1", "bb2"]
    assert "canary 我要投诉" in run("review", "show", queue, "aa1").out
    (facts,) = run("review", "show", queue, "aa1", "--json").rows
    assert (facts["text"], facts["status"], facts["n_seen"]) == ("canary 我要投诉", "open", 1)


def test_cases_are_decided_and_exported_as_rows(run: Run, queue: Path, tmp_path: Path) -> None:
    assert run("review", "approve", queue, "aa1", "--by", "Ann").code == 0
    words = ("--categories", "harassment,profanity", "--by", "李雷", "--note", "to a person")
    assert run("review", "correct", queue, "bb2", *words).code == 0
    assert run("review", "list", queue).out == ""
    assert run("review", "list", queue, "--status", "all").out.count("\n") == 2
    assert (
        "李雷: corrected, harassment, profanity (to a person)"
        in run("review", "show", queue, "bb2").out
    )
    out = tmp_path / "rows.jsonl"
    assert run("review", "export", queue, "--out", out).code == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(row["text"], row["target"]) for row in rows] == [
        ("canary 我要投诉", ["threat"]),
        ("canary two", ["harassment", "profanity"]),
    ]
    assert run("review", "correct", queue, "aa1", "--nothing").code == 0
    assert run("review", "export", queue).rows[0]["target"] == []


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("correct", "aa1"), 2),
        (("correct", "aa1", "--nothing", "-c", "threat"), 2),
        (("correct", "aa1", "-c", "canary"), 2),
        (("approve", "zz"), 3),
    ],
)
def test_decisions_that_make_no_sense_are_refused(
    run: Run, queue: Path, words: tuple[str, ...], code: int
) -> None:
    verb, *rest = words
    done = run("review", verb, queue, *rest)
    assert done.code == code
    assert run("review", "list", queue).out.count("\n") == 2


def test_an_unknown_status_and_a_missing_queue_are_told(run: Run, queue: Path) -> None:
    assert run("review", "list", queue, "--status", "done").code == 2
    assert run("review", "list", queue.with_name("none")).code == 3
