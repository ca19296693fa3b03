"""`instructrec feedback`: keep, look, count, hand on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from instructrec_deploy.core.errors import FeedbackFull
from instructrec_deploy.evaluation.reader import read_examples
from instructrec_deploy.runtime.feedback_store import FeedbackStore
from tests.unit.cli.conftest import Run

ROWS = [
    {"text": "where is my money 🙏", "target": "refund", "predicted": "card lost", "lang": "en"},
    {"text": "我的余额是多少？", "target": "余额", "predicted": "余额", "lang": "zh"},
    {"text": "ＣＡＲＤ 丢了", "target": "card lost", "source": "agent", "task": "classification"},
]


def lines(*rows: object) -> bytes:
    return "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "feedback.db"


@pytest.fixture
def filled(run: Run, store: Path) -> Path:
    assert run("feedback", "add", store, "--task", "intent", stdin=lines(*ROWS)).code == 0
    return store


def test_a_text_is_kept_with_its_label(run: Run, store: Path) -> None:
    words = ("feedback", "add", store, "I lost my card", "-l", "card lost", "--task", "intent")
    assert run(*words).out.startswith("accepted ")
    assert run(*words).out.startswith("duplicate ")
    other = run(*words[:-3], "refund", "--task", "intent", "--json").rows
    assert [row["outcome"] for row in other] == ["replaced"]


def test_lines_are_kept_and_bad_ones_told(run: Run, store: Path) -> None:
    bad = [{"text": "no answer"}, {"text": " ", "target": "refund"}, {"text": 5}]
    stdin = lines(ROWS[0], *bad, ROWS[1])
    done = run("feedback", "add", store, "--task", "intent", "--json", stdin=stdin)
    assert done.code == 2
    told = [row.get("outcome") or row["error"]["code"] for row in done.rows]
    assert told == ["accepted", "IR-1140", "IR-1101", "IR-1109", "accepted"]
    assert [row["where"] for row in done.rows if "error" in row] == ["row 2", "row 3", "row 4"]


def test_plain_lines_share_a_label(run: Run, store: Path) -> None:
    stdin = "退款\nmoney back\n".encode()
    done = run("feedback", "add", store, "-l", "refund", "--task", "intent", stdin=stdin)
    assert (done.code, done.out.count("accepted")) == (0, 2)


def test_without_a_bundle_the_default_policy_masks(run: Run, store: Path) -> None:
    text = "退款打给 13812345678"
    done = run("feedback", "add", store, text, "-l", "refund", "--task", "intent")
    assert done.out.endswith("(masked)\n")
    assert "[PHONE]" in run("feedback", "list", store, "--with-text").out


def test_a_bundle_checks_tasks_and_labels(run: Run, store: Path, tiny_bundle: Path) -> None:
    words = ("feedback", "add", store, "money", "--bundle", tiny_bundle)
    assert run(*words, "-l", "refund").code == 0
    done = run(*words, "-l", "no such label")
    assert (done.code, "IR-1107" in done.err) == (2, True)
    assert run(*words, "-l", "refund", "--task", "none").code == 3


def test_a_full_store_ends_the_verb(run: Run, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise FeedbackFull("the feedback store is full", hint="make room")

    monkeypatch.setattr(FeedbackStore, "add", refuse)
    done = run("feedback", "add", store, "--task", "intent", stdin=lines(*ROWS))
    assert (done.code, done.err.count("IR-1142")) == (4, 1)


def test_the_list_shows_no_text_unless_asked(run: Run, filled: Path) -> None:
    out = run("feedback", "list", filled).out
    assert "intent: refund (was card lost)" in out
    assert "money" not in out
    assert "多少" not in out
    assert "money" not in run("feedback", "list", filled, "--json").out
    assert "我的余额是多少？" in run("feedback", "list", filled, "--with-text").out


def test_the_list_is_limited_to_the_last_and_shows_history(run: Run, filled: Path) -> None:
    words = (ROWS[0]["text"], "-l", "top up", "--task", "intent")
    assert run("feedback", "add", filled, *words).code == 0
    last = run("feedback", "list", filled, "--limit", 1, "--json").rows
    assert [row["right"] for row in last] == ["top up"]
    assert len(run("feedback", "list", filled, "--json").rows) == 3
    history = run("feedback", "list", filled, "--history", "--json").rows
    assert [row["right"] for row in history if row["replaced_by"]] == ["refund"]


def test_the_export_is_a_data_file_that_can_be_added_again(
    run: Run, filled: Path, tmp_path: Path
) -> None:
    file = tmp_path / "rows.jsonl"
    assert run("feedback", "export", filled, "--out", file).code == 0
    rows = read_examples(file)
    assert [(row.text, row.target) for row in rows] == [(r["text"], r["target"]) for r in ROWS]
    assert {row.split for row in rows} <= {"train", "val", "test"}
    assert run("feedback", "export", filled).out == file.read_text(encoding="utf-8")
    again = run("feedback", "add", filled, stdin=file.read_bytes())
    assert again.out.count("duplicate") == 3
    copy = tmp_path / "copy.db"
    assert run("feedback", "add", copy, stdin=file.read_bytes()).code == 0
    assert run("feedback", "export", copy).out == file.read_text(encoding="utf-8")


def test_stats_count_by_task_and_label(run: Run, filled: Path) -> None:
    (facts,) = run("feedback", "stats", filled, "--json").rows
    task = facts["tasks"]["intent"]
    assert (facts["n"], task["n_corrected"], task["n_confirmed"], task["n_unsaid"]) == (3, 1, 1, 1)
    assert task["labels"] == {"refund": 1, "余额": 1, "card lost": 1}
    assert task["langs"] == {"en": 1, "zh": 1, "(not said)": 1}
    assert sum(task["splits"].values()) == 3
    assert "3 answers" in run("feedback", "stats", filled).out


@pytest.mark.parametrize(
    "words",
    [
        ("add",),
        ("add", "STORE", "one", "two", "-l", "a"),
        ("add", "-a", "127.0.0.1:1", "--bundle", "x", "one", "-l", "a"),
    ],
)
def test_unclear_words_are_refused(run: Run, store: Path, words: tuple[str, ...]) -> None:
    named = [str(store) if word == "STORE" else word for word in words]
    done = run("feedback", *named)
    assert (done.code, "hint:" in done.err) == (2, True)
    assert not store.exists()


def test_a_store_that_is_missing_is_said(run: Run, store: Path) -> None:
    for verb in ("list", "export", "stats"):
        assert run("feedback", verb, store).code == 3
