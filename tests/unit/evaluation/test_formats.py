"""Tables, Alpaca and ShareGPT files read as our own rows do."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.core.errors import RowInvalid
from instructrec_deploy.evaluation.formats import table_rows
from instructrec_deploy.evaluation.reader import read_examples

ALPACA = [
    {"instruction": "这条评论是好评吗？", "input": "物流很快😀", "output": "好评"},
    {"instruction": "Say yes", "input": "", "output": "yes"},
]
SHAREGPT = [
    {
        "system": "You work for a bank.",
        "conversations": [
            {"from": "human", "value": "你好"},
            {"from": "gpt", "value": "您好！"},
            {"from": "human", "value": "Ｉ lost my card"},
            {"from": "gpt", "value": "card lost"},
        ],
    }
]


def write(path: Path, content: str) -> Path:
    data = content.encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


@pytest.mark.parametrize("name", ["rows.csv", "rows.csv.gz", "ROWS.CSV"])
def test_a_table_with_text_and_label_needs_no_mapping(tmp_path: Path, name: str) -> None:
    content = '\ufefftext,label,split\n"我的卡丢了, 急",挂失,train\n"say ""hi""",greet,test\n'
    found = read_examples(write(tmp_path / name, content))
    assert [(e.text, e.target, e.split) for e in found] == [
        ("我的卡丢了, 急", "挂失", "train"),
        ('say "hi"', "greet", "test"),
    ]


def test_columns_may_have_other_names(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.tsv", "query\tintent\tid\n余额\tbalance\t7\n")
    (row,) = read_examples(path, columns={"text": "query", "target": "intent"})
    assert (row.text, row.target, row.id, row.extra) == ("余额", "balance", "7", {})


def test_json_lines_may_have_other_names_too(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", '{"q": "hi", "a": "greet"}\n')
    (row,) = read_examples(path, columns={"text": "q", "target": "a"})
    assert (row.text, row.target) == ("hi", "greet")


def test_alpaca_reads_the_input_or_the_instruction_where_there_is_none(tmp_path: Path) -> None:
    found = read_examples(write(tmp_path / "rows.json.gz", json.dumps(ALPACA)))
    assert [(e.text, e.target) for e in found] == [("物流很快😀", "好评"), ("Say yes", "yes")]
    assert found[0].extra == {"instruction": "这条评论是好评吗？"}


def test_sharegpt_asks_with_the_last_user_turn_and_keeps_the_turns_before(tmp_path: Path) -> None:
    (row,) = read_examples(write(tmp_path / "rows.json", json.dumps(SHAREGPT)))
    assert (row.text, row.target) == ("Ｉ lost my card", "card lost")
    assert [m["role"] for m in row.extra["messages"]] == ["system", "user", "assistant", "user"]


def test_alpaca_and_sharegpt_may_come_as_json_lines(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps(row) for row in [*ALPACA, *SHAREGPT])
    found = read_examples(write(tmp_path / "rows.jsonl", lines))
    assert [e.target for e in found] == ["好评", "yes", "card lost"]


def test_a_json_list_of_our_own_rows_is_read(tmp_path: Path) -> None:
    (row,) = read_examples(write(tmp_path / "r.json", '[{"text": "hi", "target": "greet"}]'))
    assert (row.text, row.target) == ("hi", "greet")


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("r.csv", "text,label\na,b\nc\n", "r.csv:3: 1 cells, the header names 2"),
        ("r.csv", "text,text\na,b\n", "repeated column"),
        ("r.csv", 'text,label\n"a"b,c\n', "not a valid table"),
        ("r.csv", "words,label\na,b\n", "r.csv:2: no field 'text'"),
        ("r.json", "{", "not valid JSON"),
        ("r.json", "{}", "a JSON dict, not a list"),
        ("r.json", '[{"text": "a"}, 3]', "r.json row 2: a JSON int"),
        ("r.json", '[{"instruction": "a", "output": ""}]', "row 1: no `output`"),
        ("r.json", '[{"instruction": 1, "output": "b"}]', "'instruction' is of type int"),
        ("r.json", '[{"conversations": 3}]', "row 1: `conversations` is no list"),
        ("r.json", '[{"conversations": [{"from": "x", "value": "y"}]}]', "row 1 turn 1: no known"),
        ("r.json", '[{"conversations": [{"from": "gpt", "value": "y"}]}]', "does not end with"),
    ],
)
def test_what_cannot_be_read_is_named_by_its_row(
    tmp_path: Path, name: str, content: str, words: str
) -> None:
    with pytest.raises(RowInvalid) as caught:
        read_examples(write(tmp_path / name, content))
    assert words in caught.value.message


def test_a_column_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    path = write(tmp_path / "r.csv", "query,intent\na,b\n")
    with pytest.raises(RowInvalid, match="no column 'question'") as caught:
        read_examples(path, columns={"text": "question"})
    assert "query, intent" in caught.value.hint


CELLS = st.text(st.characters(exclude_characters="\r\0", exclude_categories=("Cs",)), max_size=20)


@given(st.lists(st.tuples(CELLS, CELLS), max_size=8), st.sampled_from(",\t"))
def test_what_a_table_writer_wrote_comes_back(rows: list[tuple[str, str]], delimiter: str) -> None:
    out = io.StringIO()
    writer = csv.writer(out, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([("text", "target"), *rows])
    lines = iter(io.StringIO(out.getvalue(), newline=""))
    found: list[dict[str, Any]] = [
        row for _, row in table_rows(lines, delimiter=delimiter, columns={}, where="t")
    ]
    assert [(row["text"], row["target"]) for row in found] == rows
