"""Prompts are taken apart into text, second text and question, or left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from instructrec_deploy.core.errors import ConfigError
from instructrec_deploy.core.example import Example
from instructrec_deploy.core.manifest import TaskBook, parse_toml
from instructrec_training.prompted import rename_labels, rows_where, take_apart
from instructrec_training.recipe import DataPart, Recipe
from instructrec_training.run import train

QUESTION = "Question: (?P<question>[^\n]+)\nContext: (?P<text>.+)$"


def test_a_question_and_its_passage_are_found_in_a_prompt() -> None:
    row = Example("Question: 谁来了？\nContext: 昨天李雷来了。\n他走了。", ["李雷"], id="1")
    (found,) = take_apart([row], [QUESTION])
    assert (found.text, found.extra["question"]) == ("昨天李雷来了。\n他走了。", "谁来了？")
    assert found.target == ["李雷"]
    assert found.id == "1"


def test_prompts_that_nothing_fits_and_answers_that_are_not_there_are_left_out() -> None:
    rows = [
        Example("Say hello", ["hello"]),
        Example("Question: who?\nContext: Ann came.", ["Bob"]),
        Example("Question: who?\nContext: Ann came.", []),
        Example("Question: who?\nContext: Ann came.", ["Bob", "Ann"]),
    ]
    (found,) = take_apart(rows, [QUESTION])
    assert found.target == ["Ann"]


def test_an_answer_in_another_case_is_found_in_the_passages_own_words() -> None:
    rows = [Example("Question: what?\nContext: The Sun (a star) shone.", ["sun (A STAR)", "sky"])]
    (found,) = take_apart(rows, [QUESTION])
    assert found.target == ["Sun (a star)"]


def test_what_two_prompts_ask_alike_is_taken_once() -> None:
    rows = [
        Example("The news: Rain again.\nIs it sports or weather?", ["Weather"]),
        Example("Which section? Rain again.", ["Weather"]),
        Example("Which section? 3:2", ["Sports"]),
    ]
    patterns = [r"^The news: (?P<text>.+)\nIs it", r"^Which section\? (?P<text>.+)$"]
    found = rename_labels(take_apart(rows, patterns), {"Weather": "天气"})
    assert [(row.text, row.target) for row in found] == [("Rain again.", "天气"), ("3:2", "Sports")]


def test_pairs_have_a_second_text() -> None:
    pattern = '"(?P<text>.+)" and "(?P<text2>.+)"'
    (found,) = take_apart([Example('Are "a b" and "b a" alike?', "yes")], [pattern])
    assert (found.text, found.text2, found.target) == ("a b", "b a", "yes")


def test_rows_are_chosen_by_whole_fields() -> None:
    rows = [
        Example("a", "x", lang="en", extra={"template": "news_1"}),
        Example("b", "x", lang="en", extra={"template": "old_news_1"}),
        Example("c", "x", lang="zh", extra={"template": "news_2"}),
        Example("d", "x", lang="en"),
    ]
    assert [row.text for row in rows_where(rows, {"template": "news_.*"})] == ["a", "c"]
    assert [row.text for row in rows_where(rows, {"template": "news_.", "lang": "zh"})] == ["c"]


@given(st.text(min_size=1).filter(str.strip), st.text(min_size=1).filter(str.strip))
def test_whatever_stands_in_a_prompt_comes_out(text: str, second: str) -> None:
    rows = [Example(f"<<{text}>>||<<{second}>>", "yes")]
    found = take_apart(rows, [r"^<<(?P<text>.+)>>\|\|<<(?P<text2>.+)>>$"])
    if "<<" in text + second or ">>" in text + second:
        return  # which of several ways to read it is taken is not promised
    assert (found[0].text, found[0].text2) == (text.strip(), second.strip())


@pytest.mark.parametrize(
    ("given_", "told"),
    [
        ({"prompts": ["(?P<text>"]}, "no regular expression"),
        ({"prompts": ["(?P<answer>.+)"]}, "needs a group"),
        ({"prompts": ["(?P<text>.+)(?P<label>x)"]}, "needs a group"),
        ({"where": {"template": "("}}, "where.template"),
    ],
)
def test_a_wrong_pattern_is_named(given_: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        DataPart.model_validate({"path": "a.jsonl", "task": "t"} | given_)


def test_a_model_is_tuned_on_prompts(tiny_base: Path, tmp_path: Path) -> None:
    rows = [
        {"text": f"Is this good? {text}{mark}", "target": [label], "kind": "k", "id": text + mark}
        for text, label in (("refund my card", "No"), ("查询余额", "Yes"))
        for mark in ("", ".", "!", "?", " now", " please")
    ]
    file = tmp_path / "rows.jsonl"
    file.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    data = {"path": "rows.jsonl", "task": "t", "prompts": [r"good\? (?P<text>.+)$"]}
    data |= {"rename": {"Yes": "好"}, "where": {"kind": "k"}, "test_split": ""}
    raw = {
        "name": "tiny",
        "model": {"base": str(tiny_base)},
        "data": [data | {"validation_share": 0.3}],
        "tasks": {"t": {"instructions": {"en": ["Is it good?"]}}},
        "training": {"epochs": 1},
    }
    train(Recipe.model_validate(raw), tmp_path / "run", data_root=tmp_path, is_quiet=True)
    text = (tmp_path / "run" / "tasks.toml").read_text("utf-8")
    assert parse_toml(TaskBook, text, where="tasks").tasks["t"].labels == ("No", "好")
    raw["data"][0]["where"] = {"kind": "other"}
    with pytest.raises(ConfigError, match="no row fits"):
        train(Recipe.model_validate(raw), tmp_path / "run2", data_root=tmp_path, is_quiet=True)
