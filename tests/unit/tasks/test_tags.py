"""Tags of words: every scheme is read as seqeval reads it, and words keep their place."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.core.decision import Decision
from instructrec_deploy.core.errors import InternalError
from instructrec_deploy.core.tags import TagScheme, fresh_tags
from instructrec_deploy.tasks.extract import Window
from instructrec_deploy.tasks.tags import decode_tagged, find_tagged, read_words, word_tags

TYPES = ("PER", "LOC-x", "地点")
IOB2 = fresh_tags(TYPES)
BIOES = ("O", *(f"{mark}-{kind}" for kind in TYPES for mark in "BIES"))
PLAIN = ("O", *TYPES)
TEXTS = st.lists(
    st.sampled_from(["Ada", "London", "42", "北京", "😊", "ｗｉｄｅ", ",", "e"]),
    min_size=1,
    max_size=12,
)


def tokens_of(text: str) -> list[tuple[int, int]]:
    """Two characters a token within words, Han and signs alone, between control tokens."""
    found, place = [(0, 0)], 0
    while place < len(text):
        if text[place] == " ":
            place += 1
            continue
        end = place + 1
        if text[place].isascii() and text[place].isalnum():
            while end < min(place + 2, len(text)) and text[end].isascii() and text[end].isalnum():
                end += 1
        found.append((place, end))
        place = end
    return [*found, (0, 0)]


def window_of(
    offsets: Sequence[tuple[int, int]], tags: Sequence[int], n_tags: int, sure: float = 9.0
) -> Window:
    scores = np.zeros((len(offsets), n_tags), np.float32)
    for place, tag in enumerate(tags):
        if tag >= 0:
            scores[place, tag] = sure
    return Window(scores, offsets)


@given(st.sampled_from([IOB2, BIOES]), st.data())
def test_entities_are_those_that_seqeval_finds(names: tuple[str, ...], data: st.DataObject) -> None:
    seqeval = pytest.importorskip("seqeval.metrics.sequence_labeling")
    row = data.draw(st.lists(st.integers(0, len(names) - 1), max_size=14))
    wanted = [
        (first, last, kind) for kind, first, last in seqeval.get_entities([names[i] for i in row])
    ]
    assert TagScheme.of(names).chunks(row) == wanted


@given(TEXTS, st.sampled_from([IOB2, BIOES, PLAIN]), st.data())
def test_the_tags_of_entities_are_read_back_as_the_entities(
    words: list[str], names: tuple[str, ...], data: st.DataObject
) -> None:
    text = " ".join(words)
    starts = [sum(len(w) + 1 for w in words[:i]) for i in range(len(words))]
    scheme = TagScheme.of(names)
    wanted, place = [], 0
    while place < len(words):
        n_words = data.draw(st.integers(1, 3))
        kind = data.draw(st.sampled_from(["", *TYPES]))
        last = min(place + n_words, len(words)) - 1
        if kind and not (names == PLAIN and wanted and wanted[-1][2] == kind):
            wanted.append((starts[place], starts[last] + len(words[last]), kind))
        place = last + 1
    offsets = tokens_of(text)
    window = window_of(offsets, word_tags(offsets, text, wanted, scheme), len(names))
    found = find_tagged([window], scheme, text, labels=set(TYPES))
    assert [(s.start, s.end, s.label) for s in found] == wanted
    assert all(s.text == text[s.start : s.end] for s in found)
    assert all(0.9 < s.score <= 1.0 for s in found)


@given(TEXTS, st.integers(4, 9), st.data())
def test_windows_that_overlap_say_what_one_window_says(
    words: list[str], room: int, data: st.DataObject
) -> None:
    text = " ".join(words)
    scheme = TagScheme.of(IOB2)
    inner = tokens_of(text)[1:-1]
    rows = np.array(
        [data.draw(st.lists(st.integers(-3, 3), min_size=7, max_size=7)) for _ in inner], np.float32
    )
    whole = Window(rows, inner)
    parts = [
        Window(rows[start : start + room], inner[start : start + room])
        for start in range(0, max(1, len(inner) - 1), room - 1)
    ]
    one, many = read_words([whole], text), read_words(parts, text)
    assert list(zip(one.starts, one.ends, strict=True)) == list(
        zip(many.starts, many.ends, strict=True)
    )
    np.testing.assert_allclose(one.chances, many.chances)
    labels = set(TYPES)
    assert find_tagged([whole], scheme, text, labels=labels) == find_tagged(
        parts, scheme, text, labels=labels
    )


def test_of_two_windows_the_one_counts_that_sees_more_around_a_word() -> None:
    text, scheme = "a b c d e", TagScheme.of(("O", "X"))
    offsets = [(i, i + 1) for i in range(0, 9, 2)]
    first = window_of(offsets[:4], [0, 0, 1, 1], 2)  # d stands at its end
    second = window_of(offsets[1:], [1, 1, 0, 0], 2)  # b stands at its beginning, c is no better
    found = find_tagged([first, second], scheme, text, labels={"X"})
    assert [(s.start, s.end) for s in found] == [(4, 5)]


@pytest.mark.parametrize(
    ("names", "types", "marks"),
    [
        (("B-PER", "I-PER", "O"), ("PER",), "BIO"),
        (("O", "B_时间", "M_时间", "E_时间", "S_时间"), ("时间",), "OBIES"),
        (("O", "B-x", "I-x", "L-x", "U-x"), ("x",), "OBIES"),
        (("O", "PER", "S-Bahn"), ("PER", "S-Bahn"), "OII"),
        (("NOUN", "VERB"), ("NOUN", "VERB"), "II"),
    ],
)
def test_schemes_are_told_by_all_their_tags(
    names: tuple[str, ...], types: tuple[str, ...], marks: str
) -> None:
    scheme = TagScheme.of(names)
    assert scheme.types == types
    assert "".join(scheme.marks) == marks


def test_a_part_of_an_entity_is_not_tagged_as_its_beginning() -> None:
    text, scheme = "in New York City now", TagScheme.of(BIOES[:5])
    entity = [(3, 16, "PER")]
    cut = [(7, 11), (12, 16), (17, 20)]  # the window begins behind "New"
    assert [scheme.tags[i] for i in word_tags(cut, text, entity, scheme)] == ["I-PER", "E-PER", "O"]
    assert [scheme.tags[i] for i in word_tags([(3, 6), (7, 11)], text, entity, scheme)] == [
        "B-PER",
        "I-PER",
    ]


def test_pieces_of_a_word_have_no_tag_of_their_own() -> None:
    scheme = TagScheme.of(("O", "B-x", "I-x"))
    offsets = [(0, 0), (0, 2), (2, 4), (4, 5), (4, 5), (5, 6), (0, 0)]
    text = "cardー北"  # of one character that takes two tokens the first has the tag
    tags = word_tags(offsets, text, [(0, 4, "x")], scheme)
    assert tags[:3] == [-1, 1, -1]
    assert tags[5] == 0
    assert tags[-1] == -1


def test_a_threshold_and_what_is_not_asked_for_leave_entities_out() -> None:
    scheme = TagScheme.of(("O", "B-x", "I-x", "B-y", "I-y"))
    window = window_of([(0, 1), (2, 3)], [1, 3], 5, sure=1.0)  # a probability of about 0.4
    text = "a b"
    assert [s.label for s in find_tagged([window], scheme, text, labels={"x", "y"})] == ["x", "y"]
    assert [s.label for s in find_tagged([window], scheme, text, labels={"y"})] == ["y"]
    sure = Decision(threshold=0.9)
    answer = decode_tagged([window], scheme, ["x", "y"], text, decision=sure, task="t")
    assert (answer.spans, answer.label, answer.task) == ((), "", "t")


def test_a_head_that_gives_no_number_is_not_believed() -> None:
    window = Window(np.full((1, 2), np.nan, np.float32), [(0, 1)])
    with pytest.raises(InternalError):
        find_tagged([window], TagScheme.of(("O", "x")), "a", labels={"x"})


def test_a_text_without_a_word_has_no_entities() -> None:
    window = Window(np.zeros((2, 2), np.float32), [(0, 0), (0, 0)])
    assert find_tagged([window], TagScheme.of(("O", "x")), "", labels={"x"}) == []
