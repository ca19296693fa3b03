"""How much the words of an instruction matter to a tuned model: seen ones against an unseen one.

Shapes: N rows, W wordings.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from instructrec_deploy.core.manifest import TaskSpec
from instructrec_deploy.core.task import SHAPES, Shape, TaskKind
from instructrec_deploy.evaluation.figures import DECIMALS, Floats
from instructrec_deploy.evaluation.gains import mean_interval
from instructrec_training.objectives.base import Objective
from instructrec_training.rows import Row

MAX_TEXTS = 1_000  # an accuracy is then known to 3 points
MAX_TOKENS_ANEW = 3_000  # where texts and their candidates are read for each wording
LEAST_TEXTS_ANEW = 8  # however long they are
CHARS_PER_TOKEN = 4  # of candidates' words, roughly
Ask = Callable[[Sequence[str], Sequence[Row]], Sequence[Tensor]]  # -> [W, ...] for each row
Line = dict[str, Any]


def wording_report(
    spec: TaskSpec, objective: Objective, rows: Sequence[Row], ask: Ask, *, seed: int = 0
) -> dict[str, Any]:
    """How well the task is done under every wording, and the gap to one that training never saw.

    Args:
        spec: the task; `instructions` were seen in training, `held_out` were not.
        objective: measures the answers: their accuracy, or the headline where they can be right
            in part.
        rows: rows it was not tuned on; of more than 1,000 texts (3,000 tokens to find spans in, or
            to rank and rank for, but eight texts at least) some are sampled.
        ask: what the model says when it is asked in the given words.

    Returns:
        `default`, `seen` (every wording) and, by language, `held_out` with `gap`: the mean of the
        seen wordings of that language less the held-out one, on the same rows. Its interval is
        there for accuracy. {} where there are no rows.
    """
    if not rows:
        return {}
    is_read_anew = SHAPES[spec.kind] is Shape.EXTRACT or spec.kind is TaskKind.RANKING
    texts = _texts(rows)
    most = MAX_TEXTS
    if is_read_anew:
        most = max(LEAST_TEXTS_ANEW, len(texts) * MAX_TOKENS_ANEW // _n_tokens(rows))
    if len(texts) > most:
        texts = random.Random(seed).sample(texts, most)
    drawn = [row for text in texts for row in text]

    asked = [(lang, wording) for lang, group in spec.instructions.items() for wording in group]
    asked += spec.held_out.items()
    answers = _answers([w for _, w in asked], drawn, ask, at_once=1 if is_read_anew else len(asked))
    scored = [_score(objective, drawn, outputs) for outputs in answers]
    lines = [
        {"lang": lang, "instruction": wording, name: round(float(values.mean()), DECIMALS)}
        for (lang, wording), (name, values) in zip(asked, scored, strict=True)
    ]
    n_seen = len(asked) - len(spec.held_out)
    for unseen in range(n_seen, len(asked)):
        own = [scored[i][1] for i in range(n_seen) if asked[i][0] == asked[unseen][0]]
        if own:
            lines[unseen] |= _gap(np.mean(own, axis=0) - scored[unseen][1], seed=seed)
    default = spec.wording()
    return {
        "n": len(texts),
        "default": next(line for line in lines if line["instruction"] == default),
        "seen": lines[:n_seen],
        "held_out": lines[n_seen:],
    }


def _texts(rows: Sequence[Row]) -> list[list[Row]]:
    """The rows of each text: one, or all its windows, which stand one after another."""
    groups = itertools.groupby(rows, key=lambda row: id(row.example or row))
    return [list(group) for _, group in groups]


def _n_tokens(rows: Sequence[Row]) -> int:
    """Of the rows and of their different candidates, at least 1."""
    words = {candidate.words for row in rows for candidate in row.candidates}
    n_chars = sum(len(own) for own in words)
    return sum(len(row.ids) for row in rows) + n_chars // CHARS_PER_TOKEN or 1


def _answers(
    wordings: Sequence[str], rows: Sequence[Row], ask: Ask, *, at_once: int
) -> Iterator[list[Tensor]]:
    """The outputs for the rows in each wording, asked in groups."""
    for start in range(0, len(wordings), at_once):
        group = wordings[start : start + at_once]
        outputs = ask(group, rows)
        for number in range(len(group)):
            yield [own[number] for own in outputs]


def _score(
    objective: Objective, rows: Sequence[Row], outputs: Sequence[Tensor]
) -> tuple[str, Floats]:
    """The figure's name; whether each row is right [N], or the one value of all rows [1]."""
    hits = objective.hits(rows, outputs)
    if hits is not None:
        return "accuracy", np.array(hits, np.float64)
    name = objective.headline
    return name, np.array([objective.measure(rows, outputs, n_resamples=0)[name]], np.float64)


def _gap(differences: Floats, *, seed: int) -> Line:
    if len(differences) == 1:
        return {"gap": round(float(differences[0]), DECIMALS)}
    gap = mean_interval(differences, seed=seed)
    return {
        "gap": round(gap.value, DECIMALS),
        "gap_interval": [round(gap.low, DECIMALS), round(gap.high, DECIMALS)],
    }
