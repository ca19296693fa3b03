"""Marks go on around what was masked, or are lost with it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.core.result import Finding
from instructrec_deploy.safety.guard import Guard
from instructrec_deploy.safety.marks import move_spans, restore_span
from instructrec_deploy.safety.masking import mask_text

PARTS = st.lists(
    st.tuples(st.text(max_size=6), st.sampled_from(["", "mask", "flag"])), min_size=1, max_size=6
)


def put_together(parts: list[tuple[str, str]]) -> tuple[str, list[Finding]]:
    """The text of all parts, and a finding for each part with an action."""
    text, findings = "", []
    for part, action in parts:
        if action and part:
            findings.append(Finding("PHONE", "r", action, len(text), len(text) + len(part)))
        text += part
    return text, findings


@given(PARTS, st.data())
def test_a_moved_span_marks_what_it_marked_masked(
    parts: list[tuple[str, str]], data: st.DataObject
) -> None:
    text, findings = put_together(parts)
    if not text:
        return
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, len(text)))
    (moved,) = move_spans(findings, [(start, end)])
    masks = [f for f in findings if f.action == "mask"]
    is_cut = any(
        f.start < end and start < f.end and not start <= f.start <= f.end <= end for f in masks
    )
    assert (moved is None) is is_cut
    if moved is not None:
        inside = [
            Finding(f.category, f.rule, f.action, f.start - start, f.end - start)
            for f in masks
            if start <= f.start and f.end <= end
        ]
        masked = mask_text(text, findings)
        assert masked[slice(*moved)] == mask_text(text[start:end], inside)


@given(PARTS, st.data())
def test_a_span_of_the_masked_text_is_found_again_in_the_text_as_sent(
    parts: list[tuple[str, str]], data: st.DataObject
) -> None:
    text, findings = put_together(parts)
    masked = mask_text(text, findings)
    if not masked:
        return
    start = data.draw(st.integers(0, len(masked) - 1))
    end = data.draw(st.integers(start + 1, len(masked)))
    found = restore_span(findings, start, end)
    assert 0 <= found[0] < found[1] <= len(text)
    (back,) = move_spans(findings, [found])
    assert back is not None  # it never ends inside what was masked
    assert back[0] <= start < end <= back[1]
    if back == (start, end) and "[" not in masked[start:end]:
        assert text[slice(*found)] == masked[start:end]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("mail jo@example.com, says Anna Smith 😀", "Anna Smith"),
        ("电话13812345678，联系人李雷", "李雷"),
        ("电话１３８１２３４５６７８，ＡＰＰ 打不开", "ＡＰＰ"),
    ],
)
def test_words_behind_personal_data_keep_their_marks(text: str, word: str) -> None:
    guarded = Guard().check_input(text)
    assert guarded.text != text
    start = text.index(word)
    (moved,) = move_spans(guarded.verdict.findings, [(start, start + len(word))])
    assert moved is not None
    assert guarded.text[slice(*moved)] == word


def test_a_mark_inside_masked_words_is_lost() -> None:
    text = "mail jo@example.com now"
    findings = Guard().check_input(text).verdict.findings
    spans = [(5, 7), (8, 23), (0, 19), (5, 19)]
    assert move_spans(findings, spans) == [None, None, (0, 12), (5, 12)]
