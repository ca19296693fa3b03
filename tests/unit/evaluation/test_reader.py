"""Reading data files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.core.errors import FileMissing, RowInvalid
from instructrec_deploy.core.example import Example
from instructrec_deploy.evaluation.reader import read_examples
from instructrec_deploy.evaluation.targets import labels_of

ROWS = [
    {"text": "我的卡丢了😀", "target": "挂失", "split": "test", "id": "1", "domain": "bank"},
    {"text": "Ｗｈｅｒｅ is it?", "target": "track", "split": "train", "id": "2"},
    {"text": "no split here", "target": "track", "id": "3"},
]


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    data = "\n".join(json.dumps(row, ensure_ascii=False) for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_rows_come_back_in_order_with_unknown_fields_kept(tmp_path: Path, name: str) -> None:
    found = read_examples(write(tmp_path / name, ROWS))
    assert [e.text for e in found] == [row["text"] for row in ROWS]
    assert found[0].extra == {"domain": "bank"}


def test_a_split_holds_its_rows_and_those_that_state_none(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS)
    assert [e.id for e in read_examples(path, "test")] == ["1", "3"]
    assert len(read_examples(path, "all")) == 3


def test_an_unknown_split_names_those_there_are(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS[:2])
    with pytest.raises(RowInvalid) as caught:
        read_examples(path, "dev")
    assert "test, train" in caught.value.hint


def test_a_byte_order_mark_and_empty_lines_are_no_rows(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"text": "a"}\r\n\r\n{"text": "b"}\n\n')
    assert [e.text for e in read_examples(path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b'{"text": "a"}\n{nope}\n', ":2"),
        (b'{"text": "a"}\n{"target": "b"}\n', ":2"),
        (b'{"text": "a"}\n{"text": "\xff"}\n', ":2"),
        (b"[1]\n", ":1"),
        (b"", "no rows"),
    ],
)
def test_an_unusable_line_is_named_by_its_number(
    tmp_path: Path, content: bytes, place: str
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(content)
    with pytest.raises(RowInvalid, match=place):
        read_examples(path)


def test_a_cut_off_gzip_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl.gz", ROWS)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(RowInvalid, match="damaged"):
        read_examples(path)


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileMissing):
        read_examples(tmp_path / "nowhere.jsonl")


@given(st.text())
def test_any_text_survives_a_row(text: str) -> None:
    line = json.dumps({"text": text, "target": "x"})
    assert Example.from_json(line, where="here:1").text == text


def test_a_row_that_is_wrong_later_is_still_named_by_its_line(tmp_path: Path) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text('{"text": "a", "target": "x"}\n{"text": "secret", "target": 5, "id": "r2"}\n')
    with pytest.raises(RowInvalid) as caught:
        labels_of(read_examples(source))
    assert caught.value.message.startswith(f"{source}:2: row r2: target is")
    assert "secret" not in caught.value.message
