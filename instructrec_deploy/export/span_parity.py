"""Spans of a bundle against those of its checkpoint, and the scores behind them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from instructrec_deploy.core.manifest import TaskSpec
from instructrec_deploy.core.result import Span
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.export.compared import (
    N_ALONE,
    Answered,
    Compared,
    largest,
    must_answer,
    request_of,
)
from instructrec_deploy.export.reference import Reference
from instructrec_deploy.export.samples import Sample
from instructrec_deploy.runtime.predictor import Predictor
from instructrec_deploy.runtime.reading import words_behind
from instructrec_deploy.runtime.spans import read_windows
from instructrec_deploy.tasks.extract import Window, chances, find_answers, find_entities

LOOK = 0.1  # below the threshold: where a span may be about to come


def ask_spans(
    predictor: Predictor, name: str, spec: TaskSpec, samples: Sequence[Sample]
) -> Answered:
    """The bundle's answers, as a caller gets them.

    Raises:
        ParityFailed: a sample cannot be answered.
    """
    return _answered(predictor, name, spec, samples, _read(predictor, name, spec, samples))


def _answered(
    predictor: Predictor,
    name: str,
    spec: TaskSpec,
    samples: Sequence[Sample],
    windows: Sequence[Sequence[Window]],
) -> Answered:
    """As `ask_spans`; `windows`: the scores of each text."""
    requests = [request_of(name, spec, sample) for sample in samples]
    outcomes = predictor.predict_requests(requests)
    predictions = tuple(must_answer(name, outcome) for outcome in outcomes)
    margins = [_margin(spec, s.request.text, w) for s, w in zip(samples, windows, strict=True)]
    return Answered(tuple(samples), predictions, np.array(margins, np.float32), is_plain=False)


def compare_spans(
    predictor: Predictor,
    reference: Reference,
    name: str,
    spec: TaskSpec,
    samples: Sequence[Sample],
    *,
    tie: float,
) -> Compared:
    """Compare the bundle with its checkpoint.

    Args:
        tie: what a span's score may lack to the threshold, or the best answer's to the next one,
            where the bundle decides otherwise.

    Raises:
        ParityFailed: a sample cannot be answered.
    """
    found = _read(predictor, name, spec, samples)
    answered = _answered(predictor, name, spec, samples, found)
    truth = [reference.windows(name, spec, sample) for sample in samples]
    alone = [_read(predictor, name, spec, [sample])[0] for sample in samples[:N_ALONE]]
    return Compared(
        answered,
        np.array([_difference(spec, a, b) for a, b in zip(found, truth, strict=True)], np.float32),
        np.array(
            [
                _agreement(spec, sample.request.text, prediction.spans, windows, tie)
                for sample, prediction, windows in zip(
                    samples, answered.predictions, truth, strict=True
                )
            ],
            np.float32,
        ),
        max(_difference(spec, a, b) for a, b in zip(alone, found, strict=False)),
    )


def _read(
    predictor: Predictor, name: str, spec: TaskSpec, samples: Sequence[Sample]
) -> list[list[Window]]:
    """The bundle's scores of each text's windows; texts asked the same in one batch."""
    pipeline = predictor.pipeline
    by_question: dict[str, list[int]] = {}
    for index, sample in enumerate(samples):
        by_question.setdefault(sample.question, []).append(index)
    found: dict[int, list[Window]] = {}
    for question, chosen in by_question.items():
        prepared = pipeline.prepare(spec.instruction(name, question))
        joint_questions = pipeline.engine.model.joint_questions
        second = words_behind(prepared.instruction, joint_questions=joint_questions)
        windows = [
            pipeline.tokenizer.encode_windows(samples[index].request.text, second=second)
            for index in chosen
        ]
        found.update(zip(chosen, read_windows(pipeline.engine, windows, prepared), strict=True))
    return [found[index] for index in range(len(samples))]


def _difference(spec: TaskSpec, one: Sequence[Window], other: Sequence[Window]) -> float:
    is_question = spec.kind is TaskKind.QA
    return max(
        largest(chances(a, is_question=is_question), chances(b, is_question=is_question))
        for a, b in zip(one, other, strict=True)
    )


def _agreement(
    spec: TaskSpec, text: str, given: Sequence[Span], truth: Sequence[Window], tie: float
) -> float:
    """Entities: the share that the checkpoint finds, too. A question: 1 for the same answer."""
    if spec.kind is not TaskKind.QA:
        found = _places(given)
        sure = _places(find_entities(truth, spec.labels, text, threshold=spec.threshold + tie))
        likely = _places(find_entities(truth, spec.labels, text, threshold=spec.threshold - tie))
        n_wrong = len(found - likely) + len(sure - found)
        return 1.0 - n_wrong / max(1, len(found | sure))
    ranked = find_answers(truth, text, top_k=0)
    if not (ranked and given):
        return float(not ranked and not given)
    wanted = {(span.start, span.end): span.score for span in ranked}
    score = wanted.get((given[0].start, given[0].end), 0.0)
    return float(ranked[0].score - score <= tie)


def _places(spans: Sequence[Span]) -> frozenset[tuple[int, int, str]]:
    return frozenset((span.start, span.end, span.label) for span in spans)


def _margin(spec: TaskSpec, text: str, windows: Sequence[Window]) -> float:
    """How far a score may move before a span comes, goes, or is passed by another answer."""
    if spec.kind is TaskKind.QA:
        first, second, *_ = [*(s.score for s in find_answers(windows, text, top_k=2)), 0.0, 0.0]
        return first - second
    least = spec.threshold
    near = find_entities(windows, spec.labels, text, threshold=max(0.0, least - LOOK))
    return min((abs(span.score - least) for span in near), default=LOOK)
