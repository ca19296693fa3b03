"""The one rendering: pairs, marks, histories, and the way back to the text."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.core.errors import HistoryInvalid
from instructrec_deploy.core.request import Mark, Request
from instructrec_deploy.text.render import (
    MAX_NAME_CHARS,
    Passage,
    item_words,
    render,
    render_history,
    render_request,
)

TEXTS = st.text(min_size=1, max_size=30)


@st.composite
def marked(draw: st.DrawFn) -> tuple[str, Mark, Mark]:
    text = draw(TEXTS)
    marks = []
    for _ in range(2):
        start = draw(st.integers(0, len(text) - 1))
        marks.append(Mark(start, draw(st.integers(start + 1, len(text)))))
    return text, marks[0], marks[1]


def test_a_text_alone_is_read_as_it_is() -> None:
    passage = render("I lost 我的卡 😊")
    assert passage == Passage("I lost 我的卡 😊")
    assert passage.is_plain
    assert passage.source_span(2, 6) == (2, 6)


def test_the_texts_of_a_pair_stay_apart() -> None:
    passage = render("花呗怎么还款", text2="如何还花呗")
    assert (passage.text, passage.second) == ("花呗怎么还款", "如何还花呗")


@pytest.mark.parametrize(
    ("text", "head", "tail", "rendered"),
    [
        (
            "Paris is the capital of France.",
            Mark(0, 5),
            Mark(24, 30),
            "Paris ... France: @ Paris @ is the capital of # France #.",
        ),
        ("法国的首都是巴黎👍", Mark(6, 8), Mark(0, 2), "巴黎 ... 法国: # 法国 #的首都是@ 巴黎 @👍"),
        ("中国银行", Mark(0, 4), Mark(0, 2), "中国银行 ... 中国: @ # 中国 #银行 @"),
        ("中国银行", Mark(2, 4), Mark(0, 4), "银行 ... 中国银行: # 中国@ 银行 @ #"),
        ("same", Mark(0, 4), Mark(0, 4), "same ... same: @ # same # @"),
        ("ab", Mark(0, 1), Mark(1, 2), "a ... b: @ a @# b #"),
        ("abc", Mark(0, 2), Mark(1, 3), "ab ... bc: @ a# b @c #"),
    ],
)
def test_marks_are_named_before_the_text_and_signed_in_it(
    text: str, head: Mark, tail: Mark, rendered: str
) -> None:
    assert render(text, head=head, tail=tail).text == rendered


def test_a_rendering_adds_no_letter_of_any_language() -> None:
    added = render("一", head=Mark(0, 1), tail=Mark(0, 1)).text.replace("一", "")
    assert not any(character.isalnum() for character in added)


def test_the_name_of_a_long_mark_is_cut_but_not_the_mark() -> None:
    text = "名" * (MAX_NAME_CHARS + 50) + "x"
    passage = render(text, head=Mark(0, len(text) - 1), tail=Mark(len(text) - 1, len(text)))
    name, _, rest = passage.text.partition(" ... ")
    assert name == "名" * MAX_NAME_CHARS
    assert "名" * (MAX_NAME_CHARS + 50) in rest


@given(marked())
def test_every_part_of_a_rendering_leads_back_to_what_was_given(
    given_: tuple[str, Mark, Mark],
) -> None:
    text, head, tail = given_
    passage = render(text, head=head, tail=tail)
    for place, source, n_chars in passage.pieces:
        assert passage.text[place : place + n_chars] == text[source : source + n_chars]
        for i in range(n_chars):
            found = passage.source_span(place + i, place + i + 1)
            assert found is not None
            assert text[slice(*found)] == passage.text[place + i]
    own = [piece for piece in passage.pieces if piece.place >= passage.keep[0][1]]
    assert "".join(text[s : s + n] for _, s, n in own) == text


@given(marked())
def test_the_parts_to_keep_are_the_names_and_both_marks_with_their_signs(
    given_: tuple[str, Mark, Mark],
) -> None:
    text, head, tail = given_
    passage = render(text, head=head, tail=tail)
    names, *marks = passage.keep
    assert names[0] == 0
    for (start, end), mark, sign in zip(marks, (head, tail), "@#", strict=True):
        kept = passage.text[start:end]
        assert (kept[:2], kept[-2:]) == (f"{sign} ", f" {sign}")
        assert passage.source_span(start, end) == (mark.start, mark.end)


def test_what_was_put_in_leads_nowhere() -> None:
    passage = render("a b", head=Mark(0, 1), tail=Mark(2, 3))
    assert passage.text == "a ... b: @ a @ # b #"
    assert passage.source_span(1, 6) is None
    assert passage.source_span(0, 7) == (0, 3)


def test_a_request_is_rendered_with_all_it_brings() -> None:
    request = Request("a b", text2="丙", head=Mark(0, 1), tail=Mark(2, 3))
    wanted = render("a b", text2="丙", head=Mark(0, 1), tail=Mark(2, 3))
    assert render_request(request) == wanted
    assert (wanted.second, wanted.is_plain) == ("丙", False)


def test_a_history_has_a_line_for_each_item_the_newest_first() -> None:
    items = [
        {"item": "1", "title": "Toy Story (1995)", "genres": "Animation, Comedy", "rating": 4.0},
        "大话西游\n之月光宝盒",
        {"title": "流浪地球", "genres": ["科幻", "冒险"]},
        {"title": "👾"},
    ]
    assert render_history(items) == (
        "👾\n流浪地球: 科幻, 冒险\n大话西游 之月光宝盒\nToy Story (1995): Animation, Comedy"
    )


@pytest.mark.parametrize(
    "items", ["[]", '"one title"', '{"title": "a"}', "[1]", '[{"genres": "g"}]', '[""]', '[" "]']
)
def test_a_history_that_is_none_is_refused(items: str) -> None:
    with pytest.raises(HistoryInvalid):
        render_history(json.loads(items))


def test_the_item_without_a_title_is_named() -> None:
    with pytest.raises(HistoryInvalid, match="history item 1"):
        render_history(["好", {"title": 7}])
    assert item_words({"title": " a  b ", "genres": ""}) == "a b"
