"""Which words moved an answer: asked of the model itself, in the order of the text as sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.core.errors import RequestError
from instructrec_deploy.core.request import Question, Request
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.runtime.explain import MAX_PIECES, cut_pieces, without
from instructrec_deploy.runtime.predictor import Predictor
from instructrec_deploy.text.tokenizer import TextTokenizer


@pytest.fixture(scope="module")
def predictor(tiny_bundle: Path) -> Predictor:
    return Predictor(tiny_bundle)


def test_a_word_is_worth_what_the_answer_loses_without_it(predictor: Predictor) -> None:
    text = "please refund my card"
    told = predictor.predict(text, explain=True, top_k=0)
    places = [(one.start, one.end) for one in told.answers[0].attributions]
    assert [text[start:end] for start, end in places] == ["please", "refund", "my", "card"]
    for (start, end), one in zip(places, told.answers[0].attributions, strict=True):
        rest = predictor.predict((text[:start] + text[end:]).strip(), top_k=0)
        left = {s.label: s.score for s in rest.answers[0].scores}[told.label]
        assert one.score == pytest.approx(told.score - left, abs=1e-4)


def test_the_answer_is_the_same_with_and_without_an_explanation(predictor: Predictor) -> None:
    for text in ("refund please", "我的余额", "I lost my card " * 30):
        plain, told = predictor.predict(text), predictor.predict(text, explain=True)
        assert plain.label == told.label
        assert plain.score == pytest.approx(told.score, abs=1e-4)
        assert not plain.answers[0].attributions


def test_han_characters_are_words_of_their_own(predictor: Predictor) -> None:
    told = predictor.predict("查询余额", explain=True)
    assert [(a.start, a.end) for a in told.answers[0].attributions] == [
        (0, 1), (1, 2), (2, 3), (3, 4)
    ]  # fmt: skip


def test_offsets_lead_into_the_text_as_sent_where_it_was_masked(predictor: Predictor) -> None:
    text = "mail jo@example.com about my refund"
    told = predictor.predict(text, explain=True)
    assert told.action == "mask"
    last = told.answers[0].attributions[-1]
    assert text[last.start : last.end] == "refund"


def test_every_question_has_an_explanation_of_its_own(predictor: Predictor) -> None:
    questions = (Question(task="intent"), Question(task="sentiment"))
    (told,) = predictor.predict_requests([Request("bad card", questions, explain=True)])
    assert isinstance(told, Prediction)
    assert [len(answer.attributions) for answer in told.answers] == [2, 2]


def test_pairs_and_marks_are_not_explained(predictor: Predictor) -> None:
    with pytest.raises(RequestError, match="text2 or marks"):
        predictor.predict("a card", text2="the card", explain=True)


@given(st.text(st.sampled_from("card 余额😀[ab.\n"), max_size=300))
def test_pieces_are_few_apart_and_hold_every_readable_token(tiny_bundle: Path, text: str) -> None:
    tokenizer = TextTokenizer(tiny_bundle / "tokenizer.json", max_tokens=64)
    (encoded,) = tokenizer.encode_texts([text])
    pieces = cut_pieces(encoded, text)
    assert len(pieces) <= MAX_PIECES
    held = [place for first, last in pieces for place in range(first, last)]
    assert held == sorted(set(held))
    readable = [i for i, (start, end) in enumerate(encoded.offsets) if end > start]
    assert set(readable) <= set(held)
    for piece in pieces:
        assert len(without(encoded.ids, piece)) == len(encoded.ids) - (piece[1] - piece[0])
