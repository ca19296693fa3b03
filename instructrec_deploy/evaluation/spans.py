"""Metrics of entities: spans of the text with a type, right only where all three agree."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

import numpy as np

from instructrec_deploy.evaluation.figures import (
    DECIMALS,
    N_RESAMPLES,
    Figures,
    Floats,
    interval_of,
    ratio,
    resampled_sums,
)

Entity = tuple[int, int, str]  # start and end in code points, half-open; type


def entity_metrics(
    gold: Sequence[AbstractSet[Entity]],
    predicted: Sequence[AbstractSet[Entity]],
    *,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Figures:
    """`entity_precision`, `entity_recall` and `entity_f1` over all entities of all rows (micro).

    A predicted entity is right where start, end and type are those of a right one (CoNLL-2003;
    values equal seqeval's in its default mode). 0 of 0 counts as 0. Whole rows are resampled, for
    the entities of one text are not independent. `per_type` has the same figures for each type
    that stands in either, and `n_gold`.

    Raises:
        ValueError: no rows, or lists of different lengths.
    """
    if not gold or len(gold) != len(predicted):
        raise ValueError(f"{len(gold)} rows of right entities against {len(predicted)} predicted")
    pairs = list(zip(gold, predicted, strict=True))
    columns = np.array([[len(g & p), len(p), len(g)] for g, p in pairs], dtype=np.float64)
    values = f1_scores(columns.sum(axis=0, keepdims=True))
    samples = f1_scores(resampled_sums(columns, seed=seed, n_resamples=n_resamples))
    names = ("entity_f1", "entity_precision", "entity_recall")
    facts = {
        "n_gold_entities": int(columns[:, 2].sum()),
        "n_predicted_entities": int(columns[:, 1].sum()),
        "per_type": _per_type(pairs),
    }
    return Figures(
        len(gold),
        {name: interval_of(values[0, i], samples[:, i]) for i, name in enumerate(names)},
        facts,
    )


def _per_type(
    pairs: Sequence[tuple[AbstractSet[Entity], AbstractSet[Entity]]],
) -> dict[str, dict[str, float]]:
    return type_scores(
        Counter(entity[2] for g, p in pairs for entity in g & p),
        Counter(entity[2] for _, p in pairs for entity in p),
        Counter(entity[2] for g, _ in pairs for entity in g),
    )


def type_scores(
    hits: Counter[str], n_guessed: Counter[str], n_gold: Counter[str]
) -> dict[str, dict[str, float]]:
    """F1, precision, recall and `n_gold` of each type that stands in either; 0 of 0 counts as 0."""
    found = {}
    for name in sorted(n_gold.keys() | n_guessed.keys()):
        counts = np.array([[hits[name], n_guessed[name], n_gold[name]]], dtype=np.float64)
        f1, precision, recall = (
            round(float(x), DECIMALS) for x in np.nan_to_num(f1_scores(counts))[0]
        )
        found[name] = {"f1": f1, "precision": precision, "recall": recall, "n_gold": n_gold[name]}
    return found


def f1_scores(counts: Floats) -> Floats:
    """[R, 3] hits, predicted, right -> [R, 3] F1, precision, recall; NaN for 0 of 0."""
    hits, n_guessed, n_gold = counts.T
    f1 = ratio(2 * hits, n_guessed + n_gold)
    return np.stack([f1, ratio(hits, n_guessed), ratio(hits, n_gold)], axis=1)
