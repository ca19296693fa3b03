"""Logits of candidates to answers: the best first; more than that is decided in `decide`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from instructrec_deploy.core.decision import PLAIN, Decision
from instructrec_deploy.core.result import Answer, LabelScore
from instructrec_deploy.tasks.base import Floats, softmax
from instructrec_deploy.tasks.decide import MarkTypes, decide_answers


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
    return softmax(logits.astype(np.float64) / temperature)


def decode_answers(
    logits: Floats,
    labels: Sequence[str],
    *,
    temperature: float = 1.0,
    top_ks: Sequence[int],
    task: str = "",
    prepared_id: str = "",
    decision: Decision = PLAIN,
    types: Sequence[MarkTypes] = (),
) -> list[Answer]:
    """Answers to one question about several texts.

    Args:
        logits: [B, C], the columns in the order of `labels`.
        labels: C labels.
        top_ks: for each text how many scores come back; 0 means all.
        decision: how the scores become an answer; plain: the best candidate, whatever it is.
        types: for each text the types of its marked head and tail, where the decision has rules
            about them; empty where no text states any.

    Returns:
        B answers. Of equal scores the earlier candidate comes first.

    Raises:
        InternalError: a logit is not a number.
        DecisionInvalid: any of a single candidate, where no offset was learned.
    """
    if not decision.is_plain:
        return decide_answers(
            logits,
            labels,
            decision,
            temperature=temperature,
            top_ks=top_ks,
            task=task,
            prepared_id=prepared_id,
            types=types,
        )
    scores = probabilities(logits, temperature)
    order = np.argsort(-scores, axis=1, kind="stable")
    n_most = max((k or len(labels) for k in top_ks), default=0)
    answers = []
    for row, columns, top_k in zip(scores, order[:, : max(1, n_most)], top_ks, strict=True):
        chosen, best = columns.tolist(), row[columns].tolist()
        names = [labels[column] for column in chosen[: top_k or None]]
        ranked = tuple(map(LabelScore._make, zip(names, best, strict=False)))
        label = labels[chosen[0]]
        answers.append(Answer(task, label, best[0], ranked, prepared_id, (label,)))
    return answers
