"""Spans of a bundle against those of its checkpoint, and the scores behind them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from instructrec_deploy.core.manifest import TaskSpec
from instructrec_deploy.core.result import Span
from instructrec_deploy.core.tags import TagScheme
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
from instructrec_deploy.tasks.base import Floats, softmax
from instructrec_deploy.tasks.extract import Window, chances, find_answers, find_entities
from instructrec_deploy.tasks.tags import TaggedWords, find_tagged, read_words

Places = frozenset[tuple[int, int, str]]  # start, end, type
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
    tags = _scheme(predictor)
    margins = [
        _margin(spec, tags, s.request.text, w) for s, w in zip(samples, windows, strict=True)
    ]
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
    tags = _scheme(predictor)
    found = _read(predictor, name, spec, samples)
    answered = _answered(predictor, name, spec, samples, found)
    truth = [reference.windows(name, spec, sample) for sample in samples]
    alone = [_read(predictor, name, spec, [sample])[0] for sample in samples[:N_ALONE]]
    return Compared(
        answered,
        np.array(
            [_difference(spec, tags, a, b) for a, b in zip(found, truth, strict=True)], np.float32
        ),
        np.array(
            [
                _agreement(spec, tags, sample.request.text, prediction.spans, windows, tie)
                for sample, prediction, windows in zip(
                    samples, answered.predictions, truth, strict=True
                )
            ],
            np.float32,
        ),
        max(_difference(spec, tags, a, b) for a, b in zip(alone, found, strict=False)),
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


def _scheme(predictor: Predictor) -> TagScheme | None:
    """How the head's tags are read; None of a model that has no tags."""
    tags = predictor.bundle.manifest.model.tags
    return TagScheme.of(tags) if tags else None


def _difference(
    spec: TaskSpec, tags: TagScheme | None, one: Sequence[Window], other: Sequence[Window]
) -> float:
    is_question = spec.kind is TaskKind.QA

    def told(window: Window) -> Floats:
        return chances(window, is_question=is_question) if tags is None else softmax(window.scores)

    return max(largest(told(a), told(b)) for a, b in zip(one, other, strict=True))


def _find(
    spec: TaskSpec, tags: TagScheme | None, windows: Sequence[Window], text: str, threshold: float
) -> list[Span]:
    if tags is None:
        return find_entities(windows, spec.labels, text, threshold=threshold)
    return find_tagged(windows, tags, text, labels=set(spec.labels), threshold=threshold)


def _agreement(
    spec: TaskSpec,
    tags: TagScheme | None,
    text: str,
    given: Sequence[Span],
    truth: Sequence[Window],
    tie: float,
) -> float:
    """Entities: the share that the checkpoint finds, too. A question: 1 for the same answer."""
    if spec.kind is not TaskKind.QA:
        found = _places(given)
        sure = _places(_find(spec, tags, truth, text, spec.threshold + tie))
        likely = _places(_find(spec, tags, truth, text, spec.threshold - tie))
        wrong = (found - likely) | (sure - found)
        if wrong and tags is not None:
            wrong = _untied(wrong, read_words(truth, text), tie)
        return 1.0 - len(wrong) / max(1, len(found | sure))
    ranked = find_answers(truth, text, top_k=0)
    if not (ranked and given):
        return float(not ranked and not given)
    wanted = {(span.start, span.end): span.score for span in ranked}
    score = wanted.get((given[0].start, given[0].end), 0.0)
    return float(ranked[0].score - score <= tie)


def _places(spans: Sequence[Span]) -> Places:
    return frozenset((span.start, span.end, span.label) for span in spans)


def _untied(entities: Places, words: TaggedWords, tie: float) -> Places:
    """Those of whose words none is as good as tied between two tags, nor a neighbour."""
    is_tied = words.margins <= tie
    borders = list(zip(words.starts, words.ends, strict=True))
    near = set()
    for start, end, label in entities:
        own = [i for i, (a, b) in enumerate(borders) if a < end and b > start]
        if own and is_tied[max(0, own[0] - 1) : own[-1] + 2].any():
            near.add((start, end, label))
    return entities - near


def _margin(spec: TaskSpec, tags: TagScheme | None, text: str, windows: Sequence[Window]) -> float:
    """How far a score may move before a span comes, goes, or is passed by another answer."""
    if spec.kind is TaskKind.QA:
        first, second, *_ = [*(s.score for s in find_answers(windows, text, top_k=2)), 0.0, 0.0]
        return first - second
    least = spec.threshold
    near = _find(spec, tags, windows, text, max(0.0, least - LOOK))
    margin = min((abs(span.score - least) for span in near), default=LOOK)
    if tags is None:
        return margin
    return min(margin, float(read_words(windows, text).margins.min(initial=LOOK)))
