"""The examples of docs/tasks.md load."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from instructrec_deploy.core.errors import DecisionInvalid, LabelsAlike, NoneLabelTaken
from instructrec_deploy.core.manifest import TaskBook, TaskSpec, parse_toml

PAGE = (Path(__file__).parents[3] / "docs" / "tasks.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"```toml\n(.*?)```", PAGE, flags=re.S)


@pytest.mark.parametrize("text", EXAMPLES)
def test_an_example_is_a_task_book_whose_tasks_can_be_asked(text: str) -> None:
    book = parse_toml(TaskBook, text, where="docs/tasks.md")
    for name, spec in book.tasks.items():
        assert not spec.instruction(name).decision.faults(spec.labels)


def test_both_languages_have_examples() -> None:
    assert {parse_toml(TaskBook, text, where="x").default_task for text in EXAMPLES} > {
        "intent",
        "话题",
    }


def test_every_key_of_a_task_is_explained() -> None:
    for key in TaskSpec.model_fields:
        assert re.search(rf"^\|.*`{key}`.*\|", PAGE, flags=re.M), key


@pytest.mark.parametrize("error", [DecisionInvalid, LabelsAlike, NoneLabelTaken])
def test_error_codes_are_explained(error: type[DecisionInvalid]) -> None:
    assert f"| `{error.code}` |" in PAGE
