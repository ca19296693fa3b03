"""Logits of candidates to answers: a softmax over the candidates, the best first."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from instructrec_deploy.core.errors import InternalError
from instructrec_deploy.core.result import Answer, LabelScore
from instructrec_deploy.tasks.base import Floats


def probabilities(logits: Floats, temperature: float) -> Floats:
    """Softmax over the candidates after the temperature.

    Args:
        logits: [B, C].
        temperature: divides the logits; above 0.

    Returns:
        [B, C] float64; each row sums to 1.

    Raises:
        InternalError: a logit is not a number; the model or its graph is broken.
    """
    scaled = logits.astype(np.float64) / temperature
    top = scaled.max(axis=1, keepdims=True)
    if not np.isfinite(top).all():
        raise InternalError(
            "the model gave no finite score", hint="check the bundle: `instructrec bundle verify`"
        )
    grown = np.exp(scaled - top)
    return np.asarray(grown / grown.sum(axis=1, keepdims=True))


def decode_answers(
    logits: Floats,
    labels: Sequence[str],
    *,
    temperature: float = 1.0,
    top_ks: Sequence[int],
    task: str = "",
    prepared_id: str = "",
) -> list[Answer]:
    """Answers to one question about several texts.

    Args:
        logits: [B, C], the columns in the order of `labels`.
        labels: C labels.
        top_ks: for each text how many scores come back; 0 means all.

    Returns:
        B answers. Of equal scores the earlier candidate comes first.

    Raises:
        InternalError: a logit is not a number.
    """
    scores = probabilities(logits, temperature)
    order = np.argsort(-scores, axis=1, kind="stable")
    n_most = max((k or len(labels) for k in top_ks), default=0)
    columns = order[:, : max(1, n_most)]
    best = np.take_along_axis(scores, columns, axis=1).tolist()
    answers = []
    for row, chosen, top_k in zip(best, columns.tolist(), top_ks, strict=True):
        pairs = zip(chosen[: top_k or None], row[: top_k or None], strict=True)
        ranked = tuple(LabelScore(labels[column], score) for column, score in pairs)
        answers.append(Answer(task, labels[chosen[0]], row[0], ranked, prepared_id))
    return answers
