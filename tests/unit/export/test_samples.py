"""Which texts an export is checked with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from instructrec_deploy.core.errors import RowInvalid
from instructrec_deploy.core.manifest import TaskBook
from instructrec_deploy.core.request import Mark, Request, plain_request
from instructrec_deploy.export.samples import CHINESE, ENGLISH, Sample, read_samples, task_samples

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
    own = [
        Sample(Request("one 😊")),
        Sample(Request("一")),
        Sample(Request("one 😊")),
        Sample(Request("一", text2="二")),
    ]
    found = task_samples(BOOK, {"both": own})
    assert found["both"] == [own[0], own[1], own[3]]


def test_without_own_texts_the_shipped_ones_fit_the_task_s_languages() -> None:
    found = task_samples(BOOK, {})
    assert {task: [s.request.text for s in chosen] for task, chosen in found.items()} == {
        "both": [*ENGLISH, *CHINESE],
        "zh": list(CHINESE),
    }


def test_texts_of_no_task_serve_every_task() -> None:
    any_task = [Sample(Request("any"))]
    assert task_samples(BOOK, {"": any_task}) == {"both": any_task, "zh": any_task}


def test_a_line_separator_inside_a_text_ends_no_sample(tmp_path: Path) -> None:
    (tmp_path / "samples.jsonl").write_text('{"text": "a\u2028b", "task": "t"}\n\n', "utf-8")
    assert read_samples(tmp_path) == {"t": [Sample(Request("a\u2028b"))]}


def test_a_sample_brings_what_a_request_brings(tmp_path: Path) -> None:
    wanted = [
        Sample(Request("北京 in 中国 😊", head=Mark(0, 2), tail=Mark(6, 8))),
        Sample(Request("花呗怎么还款", text2="如何还花呗")),
        Sample(Request("花呗怎么还款？"), "怎么还"),
    ]
    lines = [
        json.dumps(
            plain_request(one.request) | {"task": "t", "question": one.question},
            ensure_ascii=False,
        )
        for one in wanted
    ]
    (tmp_path / "samples.jsonl").write_text("\n".join(lines), "utf-8")
    assert read_samples(tmp_path) == {"t": wanted}


def test_a_run_without_samples_has_none(tmp_path: Path) -> None:
    assert read_samples(tmp_path) == {}


@pytest.mark.parametrize(
    "line",
    [
        "nonsense secret",
        '["secret"]',
        '{"text": 1}',
        '{"task": "t"}',
        '{"text": "secret", "text2": 3}',
        '{"text": "secret", "head": [0, 1]}',
        '{"text": "secret", "head": [0, 1], "tail": [0, 99]}',
    ],
)
def test_a_broken_line_is_named_and_not_quoted(tmp_path: Path, line: str) -> None:
    (tmp_path / "samples.jsonl").write_text(line, "utf-8")
    with pytest.raises(RowInvalid, match=":1") as caught:
        read_samples(tmp_path)
    assert "secret" not in str(caught.value)
