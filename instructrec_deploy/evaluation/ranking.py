"""Metrics of rankings: how far up the wanted items stand among the candidates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np

from instructrec_deploy.evaluation.figures import N_RESAMPLES, Figures, mean_intervals

CUTOFFS = (1, 5, 10)


@dataclass(frozen=True, slots=True)
class Ranked:
    """Where one row's relevant items stand: ranks from 1 up, ascending, of those that were found.

    A relevant item without a score has no rank; `n_relevant` counts it all the same.
    """

    ranks: tuple[int, ...]
    n_relevant: int


def rank_relevant(scores: Mapping[str, float], relevant: AbstractSet[str]) -> Ranked:
    """Rank the relevant items by score.

    Ties count against them: every other item with the same score stands before a relevant one, so
    that a model that scores all alike gains nothing from the order of the candidates.
    """
    others = [score for item, score in scores.items() if item not in relevant]
    found = sorted((scores[item] for item in relevant & scores.keys()), reverse=True)
    # `not (other < score)` and not `>=`: a NaN ranks last
    ranks = (1 + i + sum(not (o < score) for o in others) for i, score in enumerate(found))
    return Ranked(tuple(sorted(ranks)), len(relevant))


def ranking_metrics(
    rows: Sequence[Ranked],
    *,
    cutoffs: Sequence[int] = CUTOFFS,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Figures:
    """`hr@k`, `ndcg@k` for each cutoff, and `mrr`: means over the rows.

    `hr@k`: whether a relevant item is among the first k. `ndcg@k`: 1 / log2(rank + 1) summed over
    the relevant items among the first k, divided by the most that could be reached; with one
    relevant item it is that item's 1 / log2(rank + 1). `mrr`: 1 / rank of the first relevant item,
    0 where none was found.

    Raises:
        ValueError: no rows, or a row without a relevant item.

    Source: He et al., arXiv:1708.05031 (HR and NDCG, one relevant item); Järvelin and Kekäläinen,
    2002 (NDCG, relevance 0 or 1).
    """
    if not rows or not all(row.n_relevant for row in rows):
        raise ValueError("no rows, or a row without a relevant item")
    names = [*(f"hr@{k}" for k in cutoffs), *(f"ndcg@{k}" for k in cutoffs), "mrr"]
    columns = np.array(
        [
            [
                *(float(any(rank <= k for rank in row.ranks)) for k in cutoffs),
                *(_ndcg(row, k) for k in cutoffs),
                1 / row.ranks[0] if row.ranks else 0.0,
            ]
            for row in rows
        ]
    )
    values = mean_intervals(names, columns, seed=seed, n_resamples=n_resamples)
    facts = {"n_relevant_unranked": sum(row.n_relevant - len(row.ranks) for row in rows)}
    return Figures(len(rows), values, facts)


def _ndcg(row: Ranked, k: int) -> float:
    gained = [1 / np.log2(rank + 1) for rank in row.ranks if rank <= k]
    best = [1 / np.log2(rank + 1) for rank in range(1, min(k, row.n_relevant) + 1)]
    return float(sum(gained) / sum(best))
