"""What a request may bring beside its text, and what is refused."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.core.errors import (
    MarkInvalid,
    MarkMissing,
    RequestError,
    TextEmpty,
    TextTooLong,
)
from instructrec_deploy.core.request import Mark, Request, as_mark, check_marks, plain_request


@pytest.mark.parametrize(
    ("text", "head", "tail"),
    [
        ("Paris is in France", (0, 5), (12, 18)),
        ("北京是中国的首都", Mark(0, 2), Mark(3, 5)),
        ("👩‍👧 likes 🍜", (0, 3), (10, 11)),
        ("中国银行", (0, 4), (0, 2)),  # one inside the other
        ("same", (0, 4), (0, 4)),
        ("ＡＢＣ", (0, 2), (1, 3)),  # across each other
    ],
)
def test_marks_of_code_points_are_taken_and_may_overlap(text: str, head: Any, tail: Any) -> None:
    request = Request.of(text, head=head, tail=tail)
    assert (request.head, request.tail) == (as_mark(head, "head"), as_mark(tail, "tail"))


@pytest.mark.parametrize(
    ("head", "tail", "error", "word"),
    [
        ((0, 2), None, MarkMissing, "tail"),
        (None, (0, 2), MarkMissing, "head"),
        ((2, 2), (0, 2), MarkInvalid, "head"),
        ((3, 2), (0, 2), MarkInvalid, "head"),
        ((0, 2), (0, 6), MarkInvalid, "tail"),
        ((0, 2), (2, 3), MarkInvalid, "white space"),
        ((-1, 2), (0, 2), MarkInvalid, "head"),
        ((0, 1.5), (0, 2), MarkInvalid, "head"),
        ((True, 2), (0, 2), MarkInvalid, "head"),
        ((0, 1, 2), (0, 2), MarkInvalid, "head"),
        ("ab", (0, 2), MarkInvalid, "head"),
        ({"start": 0}, (0, 2), MarkInvalid, "head"),
    ],
)
def test_marks_that_mark_nothing_are_refused(
    head: Any, tail: Any, error: type[Exception], word: str
) -> None:
    with pytest.raises(error, match=word) as caught:
        Request.of("一二 四五", head=head, tail=tail)
    assert "四" not in str(caught.value)


@given(st.text(max_size=12), st.integers(0, 14), st.integers(0, 14))
def test_a_mark_is_taken_exactly_where_it_shows_something(text: str, start: int, end: int) -> None:
    mark = Mark(start, end)
    shows = start < end <= len(text) and text[start:end].strip() != ""
    if shows:
        assert check_marks(text, mark, mark) == (mark, mark)
    else:
        with pytest.raises(MarkInvalid):
            check_marks(text, mark, mark)


def test_both_texts_count_to_the_limit() -> None:
    Request.of("四个字啊", text2="123456", max_text_chars=10)
    with pytest.raises(TextTooLong, match="text and text2 together have 11"):
        Request.of("四个字啊", text2="1234567", max_text_chars=10)


def test_a_second_text_of_white_space_is_refused() -> None:
    with pytest.raises(TextEmpty, match="text2"):
        Request.of("a", text2=" \u3000")


def test_plain_data_holds_what_was_brought_and_nothing_else() -> None:
    assert plain_request(Request("a", id="7", top_k=1)) == {"text": "a"}
    whole = Request("ab", text2="丙", head=Mark(0, 1), tail=Mark(1, 2))
    assert plain_request(whole) == {
        "text": "ab",
        "text2": "丙",
        "head": {"start": 0, "end": 1},
        "tail": {"start": 1, "end": 2},
    }


def test_errors_of_marks_are_the_caller_s() -> None:
    assert (MarkInvalid.code, MarkMissing.code) == ("IR-1120", "IR-1121")
    assert issubclass(MarkInvalid, RequestError)
