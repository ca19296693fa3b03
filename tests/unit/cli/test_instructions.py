"""`instructrec instructions`: the list, and the search on a tiny bundle."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from instructrec_deploy.core.manifest import TaskBook
from tests.tiny import write_tiny_bundle
from tests.unit.cli.conftest import Run

MESSAGES = {
    "card lost": ["I lost my card", "my card is lost", "lost card please", "the card was lost"],
    "refund": ["refund please", "I want a refund", "refund my money", "can I get a refund"],
    "余额": ["余额查询", "我的余额", "查询余额", "余额是什么"],
}
FEW = ("--budget", 12)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """30 rows of validation, 24 of test, 3 of a label that no task has."""
    rows = [
        {"text": f"{text} {'today ' * n}", "target": label, "split": split}
        for split, count in (("val", 3), ("test", 2))
        for label, texts in MESSAGES.items()
        for n in range(count)
        for text in texts
    ]
    rows += [{"text": "who are you", "target": "chat", "split": "val"}] * 3
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    return path


def test_the_list_names_every_family_with_a_title(run: Run) -> None:
    lines = run("instructions", "list").out.splitlines()
    assert any(line.startswith("emotion ") and "emotion a text expresses" in line for line in lines)
    assert len(lines) == 39 + 1


def test_the_words_of_one_family_are_shown_in_both_languages(run: Run) -> None:
    out = run("instructions", "list", "emotion").out
    assert "How does the writer feel?" in out
    assert "写的人心情怎么样？" in out
    assert "anger -> 愤怒" in out
    (facts,) = run("instructions", "list", "emotion", "--json").rows
    assert len(facts["emotion"]["zh"]["wordings"]) >= 6
    assert run("instructions", "list", "emotio").code == 2


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_search_says_what_it_found_in_one_object(
    run: Run, tiny_bundle: Path, data: Path, lang: str
) -> None:
    words = ("instructions", "search", tiny_bundle, "--data", data, "--lang", lang, "--json")
    done = run(*words, *FEW, "--test-split", "test")
    (facts,) = done.rows
    assert (facts["n_rows"], facts["n_outside"], facts["n_tried"]) == (36, 3, 12)
    assert (facts["task"], facts["lang"], facts["n_labels"]) == ("intent", lang, 7)
    assert facts["n_search"] + facts["n_confirm"] == 36
    default = {"en": "What does the customer want?", "zh": "客户想要什么？"}[lang]
    assert facts["default"]["instruction"] == default
    assert facts["test"]["n"] == 24
    book = tomllib.loads(facts["toml"])
    assert book["tasks"]["intent"]["instructions"][lang][0] == facts["chosen"]


def test_the_snippet_is_valid_where_tasks_stand_and_figures_go_to_the_screen(
    run: Run, tiny_bundle: Path, data: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new" / "snippet.toml"
    done = run("instructions", "search", tiny_bundle, "-d", data, *FEW, "--out", out)
    assert done.code == 0, done.err
    book = TaskBook.model_validate(tomllib.loads(out.read_text(encoding="utf-8")))
    assert book.tasks["intent"].instructions["en"]
    assert "rows that did not choose" in done.out
    assert "[tasks." not in done.out
    printed = run("instructions", "search", tiny_bundle, "-d", data, *FEW).out
    assert '[tasks."intent".instructions]' in printed


def test_the_same_seed_finds_the_same(run: Run, tiny_bundle: Path, data: Path) -> None:
    words = ("instructions", "search", tiny_bundle, "-d", data, "--json", "--budget", 40)
    first, second = (run(*words, "--seed", 7).rows[0] for _ in range(2))
    times = ("seconds", "encode_s")
    assert {k: v for k, v in first.items() if k not in times} == {
        k: v for k, v in second.items() if k not in times
    }


def test_a_planted_wording_of_the_user_is_tried_and_reported(
    run: Run, tiny_bundle: Path, data: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own.txt"
    own.write_text("# mine\n\nSort the message\n想做什么？\nSort the message\n", encoding="utf-8")
    words = ("instructions", "search", tiny_bundle, "-d", data, *FEW, "--json")
    (facts,) = run(*words, "--wordings", own).rows
    given = [w["instruction"] for w in facts["wordings"] if w["origin"] == "given"]
    assert sorted(set(given)) == ["Sort the message", "想做什么？"]


def test_a_better_wording_than_a_bad_default_is_found_and_kept(
    run: Run, data: Path, tmp_path: Path
) -> None:
    """Every label is described by the words of another one, until the bare labels are read."""
    tasks = (
        'default_task = "intent"\n[tasks.intent]\nlabels = ["card lost", "refund", "余额"]\n'
        '[tasks.intent.descriptions]\n"card lost" = "refund money"\n"refund" = "查询余额"\n'
        '"余额" = "lost card"\n[tasks.intent.instructions]\nen = ["Which?"]\n'
    )
    root = write_tiny_bundle(tmp_path / "b", tasks_toml=tasks)
    words = ("instructions", "search", root, "-d", data, "--json", "--budget", 20)
    (facts,) = run(*words, "--test-split", "test").rows
    assert facts["confirm"]["default"] < 0.2
    assert facts["confirm"]["best"] > 0.8
    assert facts["confirm"]["is_confirmed"]
    assert facts["test"]["gain_interval"][0] > 0
    described = tomllib.loads(facts["toml"])["tasks"]["intent"].get("descriptions", {})
    assert described.get("card lost", "card lost").count("lost") == 1


def test_a_task_the_bundle_does_not_have_is_searched_with_labels_of_the_data(
    run: Run, tiny_bundle: Path, data: Path
) -> None:
    words = ("--instruction", "这是什么？", "--labels-from", "data", "--lang", "zh", "--json")
    (facts,) = run("instructions", "search", tiny_bundle, "-d", data, *FEW, *words).rows
    assert (facts["task"], facts["n_labels"], facts["n_outside"]) == ("", 4, 0)
    assert facts["default"]["instruction"] == "这是什么？"


def test_the_limit_draws_rows_at_random_and_says_how_many_were_left(
    run: Run, tiny_bundle: Path, data: Path
) -> None:
    words = ("instructions", "search", tiny_bundle, "-d", data, *FEW, "--json", "--limit", 24)
    (facts,) = run(*words).rows
    assert (facts["n_rows"], facts["n_left_out"]) == (24, 12)


def test_held_out_wordings_of_the_task_are_left_alone(run: Run, data: Path, tmp_path: Path) -> None:
    tasks = (
        'default_task = "intent"\n[tasks.intent]\nlabels = ["card lost", "refund", "余额"]\n'
        '[tasks.intent.held_out]\nen = "Never seen"\n[tasks.intent.instructions]\nen = ["Which?"]\n'
    )
    root = write_tiny_bundle(tmp_path / "b", tasks_toml=tasks)
    own = tmp_path / "own.txt"
    own.write_text("never seen?\nOther\n", encoding="utf-8")
    words = ("instructions", "search", root, "-d", data, *FEW, "--json", "--wordings", own)
    found = {w["instruction"] for w in run(*words).rows[0]["wordings"]}
    assert "Other" in found
    assert "never seen?" not in found


def test_faults_have_codes_and_hints(
    run: Run, tiny_bundle: Path, tiny_head_bundle: Path, data: Path, tmp_path: Path
) -> None:
    empty, other, gbk = tmp_path / "empty.txt", tmp_path / "other.jsonl", tmp_path / "gbk.txt"
    empty.write_text("# nothing\n")
    gbk.write_bytes("哪个".encode("gbk"))
    other.write_text('{"text": "a", "target": "b", "split": "val"}\n' * 30)
    few = tmp_path / "few.jsonl"
    few.write_text('{"text": "a", "target": "refund", "split": "val"}\n' * 30)
    spans = tmp_path / "spans.jsonl"
    spans.write_text('{"text": "secret", "target": [], "split": "val"}\n')
    cases = [
        ((tiny_head_bundle, "-d", data), 2, "IR-1622"),
        ((tiny_bundle, "-d", other), 2, "IR-1622"),
        ((tiny_bundle, "-d", few), 2, "IR-1622"),
        ((tiny_bundle, "-d", spans), 2, "IR-1109"),
        ((tiny_bundle, "-d", data, "--wordings", empty), 2, "IR-1621"),
        ((tiny_bundle, "-d", data, "--wordings", gbk), 2, "IR-1621"),
        ((tiny_bundle, "-d", data, "--wordings", tmp_path / "no.txt"), 3, "IR-1203"),
        ((tiny_bundle, "-d", data, "--family", "emotio"), 2, "IR-1620"),
        ((tiny_bundle, "-d", data, "--lang", "fr"), 2, "IR-1620"),
        ((tiny_bundle, "-d", data, "--task", "no"), 3, "IR-1201"),
        ((tiny_bundle, "-d", data, "--split", "dev"), 2, "IR-1109"),
        ((tiny_bundle, "-d", tmp_path / "no.jsonl"), 3, "IR-1203"),
        ((tmp_path / "nowhere", "-d", data), 3, "IR-1203"),
    ]
    for words, code, name in cases:
        done = run("instructions", "search", *words)
        assert (done.code, name in done.err, "hint:" in done.err) == (code, True, True), words
        assert "secret" not in done.err


@pytest.mark.parametrize("decision", ['decision = "any"', 'kind = "ranking"'])
def test_a_task_of_other_answers_than_one_label_is_refused_by_name(
    run: Run, data: Path, tmp_path: Path, decision: str
) -> None:
    tasks = (
        f'default_task = "意图"\n[tasks."意图"]\nlabels = ["refund", "余额"]\n{decision}\n'
        '[tasks."意图".instructions]\nzh = ["想做什么？"]\n'
    )
    root = write_tiny_bundle(tmp_path / "b", tasks_toml=tasks)
    done = run("instructions", "search", root, "-d", data, "--lang", "zh")
    assert (done.code, "IR-1622" in done.err, "意图" in done.err) == (2, True, True)
