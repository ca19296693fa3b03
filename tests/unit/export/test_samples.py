"""Which texts an export is checked with."""

from __future__ import annotations

from pathlib import Path

import pytest

from instructrec_deploy.core.errors import RowInvalid
from instructrec_deploy.core.manifest import TaskBook
from instructrec_deploy.export.samples import CHINESE, ENGLISH, read_samples, task_samples

BOOK = TaskBook.model_validate(
    {
        "tasks": {
            "both": {"labels": ["a", "b"], "instructions": {"en": ["?"], "zh": ["？"]}},
            "zh": {"labels": ["甲", "乙"], "lang": "zh", "instructions": {"zh": ["？"]}},
            "open": {"instructions": {"en": ["?"]}},
        }
    }
)


def test_a_run_s_own_texts_come_first_and_each_once() -> None:
    found = task_samples(BOOK, {"both": ["one 😊", "一", "one 😊"]})
    assert found["both"] == ["one 😊", "一"]


def test_without_own_texts_the_shipped_ones_fit_the_task_s_languages() -> None:
    found = task_samples(BOOK, {})
    assert found == {"both": [*ENGLISH, *CHINESE], "zh": list(CHINESE)}


def test_texts_of_no_task_serve_every_task() -> None:
    assert task_samples(BOOK, {"": ["any"]}) == {"both": ["any"], "zh": ["any"]}


def test_a_line_separator_inside_a_text_ends_no_sample(tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").write_text('{"text": "a\u2028b", "task": "t"}\n\n', "utf-8")
    assert read_samples(tmp_path) == {"t": ["a\u2028b"]}


def test_a_run_without_samples_has_none(tmp_path: Path) -> None:
    assert read_samples(tmp_path) == {}


@pytest.mark.parametrize("line", ["nonsense secret", '["secret"]', '{"text": 1}', '{"task": "t"}'])
def test_a_broken_line_is_named_and_not_quoted(tmp_path: Path, line: str) -> None:
    (tmp_path / "samples.jsonl").write_text(line, "utf-8")
    with pytest.raises(RowInvalid, match=":1") as caught:
        read_samples(tmp_path)
    assert "secret" not in str(caught.value)
