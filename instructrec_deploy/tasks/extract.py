"""Scores of tokens to spans: entities of named types, or answers to a question.

Shapes: T tokens of a window, C candidates. The last axis of scores is first, last, inside.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from instructrec_deploy.core.decision import DEFAULT_THRESHOLD, PLAIN, Decision
from instructrec_deploy.core.errors import InternalError
from instructrec_deploy.core.result import Answer, LabelScore, Span
from instructrec_deploy.tasks.base import Floats, Ints

Bools = NDArray[np.bool_]
START, END, INSIDE = 0, 1, 2
FLOOR = 0.05  # a border less likely than this is not looked at
MAX_BORDERS = 64  # of one type in one window: bounds the work on a text made to hurt
MAX_ENTITY_TOKENS = 32
MAX_ANSWER_TOKENS = 48
TOP_BORDERS = 12  # likeliest first and last tokens of an answer that are combined


@dataclass(frozen=True, slots=True)
class Window:
    """One window of a text. `offsets`: code points of each token, (0, 0) for control tokens."""

    scores: Floats  # [T, C, 3] logits
    offsets: Sequence[tuple[int, int]]


def find_entities(
    windows: Iterable[Window], labels: Sequence[str], text: str, *, threshold: float = 0.5
) -> list[Span]:
    """Spans that do not overlap, in the order of the text.

    A span's score is the geometric mean of three probabilities: that its first token is one, that
    its last token is one, and the mean of its tokens being inside. Of spans that overlap, of one
    type or of two, the best stays. A span begins and ends with whole words.

    Args:
        windows: of one text; they may overlap.
        labels: C types.
        text: what the offsets point into.
        threshold: least score, 0 to 1.

    Raises:
        InternalError: a score is not a number.
    """
    best: dict[tuple[int, int, int], float] = {}
    for window in windows:
        for candidate, start, end, score in _entities_of(window, text, threshold):
            key = (start, end, candidate)
            best[key] = max(score, best.get(key, 0.0))
    taken: list[Span] = []
    used = np.zeros(len(text), bool)
    for (start, end, candidate), score in sorted(best.items(), key=lambda kv: (-kv[1], kv[0])):
        if not used[start:end].any():
            used[start:end] = True
            taken.append(Span(start, end, labels[candidate], text[start:end], score))
    return sorted(taken, key=lambda span: span.start)


def find_answers(windows: Iterable[Window], text: str, *, top_k: int = 1) -> list[Span]:
    """Answers to one question, best first; empty where "no answer" is likelier than each.

    A span's logit is that of its first token plus that of its last; "no answer" has those of the
    window's first control token, and the window surest of an answer speaks for all. Scores are
    softmax probabilities over the spans looked at and "no answer".

    Args:
        windows: of one text; they may overlap.
        text: what the offsets point into.
        top_k: how many, at most; 0 for all that were looked at.

    Raises:
        InternalError: a score is not a number.
    """
    best: dict[tuple[int, int], float] = {}
    least_null = np.inf
    for window in windows:
        scores = _finite(window.scores)[:, 0, :]
        least_null = min(least_null, float(scores[0, START] + scores[0, END]))
        for start, end, logit in _answers_of(scores, window.offsets, text):
            best[start, end] = max(logit, best.get((start, end), -np.inf))
    if not best:
        return []
    ranked = sorted(best.items(), key=lambda kv: (-kv[1], kv[0]))
    logits = np.array([least_null, *(logit for _, logit in ranked)], np.float64)
    grown = np.exp(logits - logits.max())
    shares = grown / grown.sum()
    if shares[0] >= shares[1]:
        return []
    return [
        Span(start, end, "", text[start:end], float(share))
        for ((start, end), _), share in zip(ranked[: top_k or None], shares[1:], strict=False)
    ]


def decode_entities(
    windows: Iterable[Window],
    labels: Sequence[str],
    text: str,
    *,
    decision: Decision = PLAIN,
    default_threshold: float = DEFAULT_THRESHOLD,
    top_k: int = 0,
    task: str = "",
    prepared_id: str = "",
) -> Answer:
    """The entities of a text as an answer: its types in the order of their surest span.

    Args:
        windows, labels, text: as `find_entities`.
        decision: its threshold is the least score of a span.
        default_threshold: the least score where the decision says none.
        top_k: how many types have their score told; 0 means all that were found.

    Raises:
        InternalError: a score is not a number.
    """
    least = default_threshold if decision.threshold is None else decision.threshold
    spans = find_entities(windows, labels, text, threshold=least)
    return answer_of(spans, decision=decision, top_k=top_k, task=task, prepared_id=prepared_id)


def answer_of(
    spans: Sequence[Span],
    *,
    decision: Decision = PLAIN,
    top_k: int = 0,
    task: str = "",
    prepared_id: str = "",
) -> Answer:
    """Entities that were found as an answer; arguments as `decode_entities`."""
    best: dict[str, float] = {}
    for span in sorted(spans, key=lambda span: -span.score):
        best.setdefault(span.label, span.score)
    scores = tuple(LabelScore(label, score) for label, score in best.items())
    label, score = next(iter(best.items()), (decision.none_label, 0.0))
    return Answer(
        task,
        label,
        score,
        scores[: top_k or None],
        prepared_id,
        tuple(best),
        not spans,
        tuple(spans),
    )


def decode_reply(
    windows: Iterable[Window], text: str, *, top_k: int = 1, task: str = "", prepared_id: str = ""
) -> Answer:
    """The answers that a passage has to one question: the best as the label, all as spans.

    Raises:
        InternalError: a score is not a number.
    """
    spans = find_answers(windows, text, top_k=top_k)
    best: dict[str, float] = {}
    for span in spans:  # the same words may stand in several places
        best.setdefault(span.text, span.score)
    scores = tuple(LabelScore(words, score) for words, score in best.items())
    label, score = (spans[0].text, spans[0].score) if spans else ("", 0.0)
    labels = (label,) if spans else ()
    return Answer(task, label, score, scores, prepared_id, labels, not spans, tuple(spans))


def chances(window: Window, *, is_question: bool) -> Floats:
    """The probabilities that spans are made of, for comparing two models.

    Returns:
        [T, C, 3] float64: of each mark by itself. A question's: [T, 2], of each token to be the
        first and the last of the answer.
    """
    scores = _finite(window.scores).astype(np.float64)
    if not is_question:
        return np.asarray(1.0 / (1.0 + np.exp(-scores)))
    borders = scores[:, 0, : END + 1]
    grown = np.exp(borders - borders.max(axis=0))
    return np.asarray(grown / grown.sum(axis=0))


def _entities_of(
    window: Window, text: str, threshold: float
) -> Iterable[tuple[int, int, int, float]]:
    """(candidate, start, end, score) of every span of a window that reaches the threshold."""
    likely = chances(window, is_question=False)
    opens, closes = word_borders(window.offsets, text)
    for candidate in range(likely.shape[1]):
        first, last, inside = (likely[:, candidate, mark] for mark in (START, END, INSIDE))
        starts = _borders(first, opens)
        ends = _borders(last, closes)
        if not (len(starts) and len(ends)):
            continue
        summed = np.concatenate([[0.0], np.cumsum(inside)])
        for i in starts:
            for j in ends[(ends >= i) & (ends < i + MAX_ENTITY_TOKENS)]:
                within = (summed[j + 1] - summed[i]) / (j + 1 - i)
                score = float(np.cbrt(first[i] * last[j] * within))
                if score >= threshold:
                    yield candidate, window.offsets[i][0], window.offsets[j][1], score


def _borders(likely: Floats, allowed: Bools) -> Ints:
    """Tokens that may be a border, the likeliest of them where there are too many, in order."""
    found = np.flatnonzero((likely >= FLOOR) & allowed)
    if len(found) > MAX_BORDERS:
        found = np.sort(found[np.argsort(-likely[found], kind="stable")[:MAX_BORDERS]])
    return found


def _answers_of(
    scores: Floats, offsets: Sequence[tuple[int, int]], text: str
) -> Iterable[tuple[int, int, float]]:
    """(start, end, logit) of the likeliest spans of a window."""
    opens, closes = word_borders(offsets, text)
    starts = np.flatnonzero(opens)
    ends = np.flatnonzero(closes)
    starts = starts[np.argsort(-scores[starts, START], kind="stable")[:TOP_BORDERS]]
    ends = ends[np.argsort(-scores[ends, END], kind="stable")[:TOP_BORDERS]]
    for i in starts.tolist():
        for j in ends.tolist():
            if i <= j < i + MAX_ANSWER_TOKENS:
                logit = float(scores[i, START] + scores[j, END])
                yield offsets[i][0], offsets[j][1], logit


def word_borders(offsets: Sequence[tuple[int, int]], text: str) -> tuple[Bools, Bools]:
    """Which tokens begin a word and which end one, two bool arrays [T].

    A token in the middle of a word of letters does neither; a Han character is a word of its own.
    """
    opens, closes = np.zeros(len(offsets), bool), np.zeros(len(offsets), bool)
    for place, (start, end) in enumerate(offsets):
        if end > start:
            opens[place] = start == 0 or not _joined(text[start - 1], text[start])
            closes[place] = end == len(text) or not _joined(text[end - 1], text[end])
    return opens, closes


def _joined(left: str, right: str) -> bool:
    """Whether two neighbouring characters belong to one word."""
    return left.isalnum() and right.isalnum() and not (_is_han(left) or _is_han(right))


def _is_han(char: str) -> bool:
    return "\u3400" <= char <= "\u9fff" or "\uf900" <= char <= "\ufaff" or char >= "\U00020000"


def _finite(scores: Floats) -> Floats:
    if not np.isfinite(scores).all():
        raise InternalError(
            "the model gave no finite score", hint="check the bundle: `instructrec bundle verify`"
        )
    return scores
