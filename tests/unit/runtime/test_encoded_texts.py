"""Texts encoded once answer as texts that are asked one by one."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.errors import InternalError
from instructrec_deploy.core.instruction import Candidate, Instruction
from instructrec_deploy.core.request import Question, Request
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.runtime.encoded_texts import EncodedTexts
from instructrec_deploy.runtime.engine import EngineSettings
from instructrec_deploy.runtime.pipeline import Pipeline
from instructrec_deploy.tasks.classify import probabilities
from tests.tiny import write_tiny_bundle

TEXTS = ["I lost my card", "我的卡丢了", "refund " * 40, "👍🏽", "ＲＥＦＵＮＤ 退款", "pin"]
REQUESTS = [
    *(Request.of(text) for text in TEXTS[:4]),
    Request.of(TEXTS[4], text2="查询余额"),
    Request.of("pin of my card", head=(0, 3), tail=(10, 14)),
]
QUESTIONS = [
    Instruction.of("What does the customer want?", ["card lost", "refund", "余额"]),
    Instruction.of("客户想要什么？", [Candidate("card lost", "我的卡丢了"), Candidate("refund")]),
    Instruction.of("Sentiment", ["positive", "negative"], temperature=2.0),
    Instruction.of("Which?", [Candidate("pin"), Candidate("余额", prior=1.5)], prior_weight=2.0),
]
TOLERANCE = 1e-5  # float32 sums in another order


@pytest.mark.parametrize("has_fusion", [True, False], ids=["fusion", "no fusion"])
@pytest.mark.parametrize("n_lanes", [1, 2])
def test_answers_are_those_of_the_pipeline(has_fusion: bool, n_lanes: int, tmp_path: Path) -> None:
    bundle = open_bundle(write_tiny_bundle(tmp_path / "b", has_fusion=has_fusion))
    engine = EngineSettings(n_lanes=n_lanes, threads_per_lane=1, provider="cpu")
    with closing(Pipeline.open(bundle, engine=engine)) as pipeline:
        texts = EncodedTexts(pipeline, REQUESTS)
        rows = np.array([5, 0, 3, 2, 1])
        found = texts.logits_of_all(QUESTIONS, rows)
        for question, logits in zip(QUESTIONS, found, strict=True):
            own = probabilities(logits, question.temperature)
            for row, scores in zip(rows, own, strict=True):
                asked = (Question(instruction=question),)
                request = replace(REQUESTS[row], questions=asked, top_k=0)
                (answer,) = pipeline.answer([request])
                assert isinstance(answer, Prediction)
                wanted = {score.label: score.score for score in answer.answers[0].scores}
                assert dict(zip(question.labels, scores, strict=True)) == pytest.approx(
                    wanted, abs=TOLERANCE
                )


def test_a_text_is_encoded_once_however_many_wordings_ask(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = EncodedTexts(pipeline, REQUESTS)
    n_rows = 0
    plain = pipeline.engine.encode

    def counted(ids: np.ndarray, *rest: object, **extra: object) -> object:
        nonlocal n_rows
        n_rows += len(ids)
        return plain(ids, *rest, **extra)  # type: ignore[arg-type]

    monkeypatch.setattr(pipeline.engine, "encode", counted)
    texts.logits_of_all(QUESTIONS, np.arange(len(TEXTS)))
    assert n_rows == sum(len(question.candidates) for question in QUESTIONS)


def test_empty_undecodable_and_blocked_texts_are_left_out(tmp_path: Path) -> None:
    root = write_tiny_bundle(
        tmp_path / "b", safety='version = "1"\n[input.personal_data]\nEMAIL = "block"\n'
    )
    with closing(Pipeline.open(open_bundle(root))) as pipeline:
        given = ["refund", " ", "mail me: a@example.com", "\ud800", "pin"]
        texts = EncodedTexts(pipeline, [Request(text) for text in given])
        assert texts.kept == (0, 4)
        assert len(texts) == 2
        assert texts.logits(QUESTIONS[0], np.array([1, 0])).shape == (2, 3)


def test_nothing_to_encode_is_no_fault(pipeline: Pipeline) -> None:
    texts = EncodedTexts(pipeline, [])
    assert texts.logits(QUESTIONS[0], np.empty(0, np.int64)).shape == (0, 3)


def test_a_model_with_fixed_labels_is_refused(head_pipeline: Pipeline) -> None:
    with pytest.raises(InternalError, match="fixed labels"):
        EncodedTexts(head_pipeline, REQUESTS)
