"""Two models on the same rows: what one lost against the other, and how sure that is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from instructrec_deploy.evaluation.figures import Interval

N_RESAMPLES = 10_000  # the certainty is compared with 0.8: its own error is then 0.004


@dataclass(frozen=True, slots=True)
class Paired:
    """Accuracies of an old and a new model on the same rows.

    `loss` is what the new one lost, in points (hundredths), with its 95 % interval; a gain is
    negative. `certainty` is the share of paired bootstrap resamples in which anything was lost.
    """

    n: int
    n_lost: int  # right before, wrong now
    n_gained: int  # wrong before, right now
    old_accuracy: float
    new_accuracy: float
    loss: Interval
    certainty: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "n": self.n,
            "old_accuracy": round(self.old_accuracy, 6),
            "new_accuracy": round(self.new_accuracy, 6),
            "n_lost": self.n_lost,
            "n_gained": self.n_gained,
            "loss_points": round(self.loss.value, 4),
            "loss_interval": [round(self.loss.low, 4), round(self.loss.high, 4)],
            "certainty": round(self.certainty, 4),
        }


def compare_paired(
    old_hits: Sequence[bool],
    new_hits: Sequence[bool],
    *,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Paired:
    """Compare two models row by row.

    Rows are resampled with both models' results together. Of a row only three things matter (lost,
    gained, neither), so a resample of N rows is one draw of three counts.

    Args:
        old_hits, new_hits: whether each row was answered right, in the same order.
        seed: of the resampling.
        n_resamples: how many.

    Raises:
        ValueError: no rows, or lists of different lengths.

    Source: paired bootstrap, Koehn 2004 (Statistical Significance Tests for MT Evaluation).
    """
    n = len(old_hits)
    if not n or n != len(new_hits):
        raise ValueError(f"{n} rows against {len(new_hits)}")
    old, new = np.array(old_hits, bool), np.array(new_hits, bool)
    n_lost, n_gained = int((old & ~new).sum()), int((new & ~old).sum())
    shares = np.array([n_lost, n_gained, n - n_lost - n_gained]) / n
    draws = np.random.default_rng(seed).multinomial(n, shares, size=n_resamples)
    losses = 100.0 * (draws[:, 0] - draws[:, 1]) / n
    low, high = np.quantile(losses, [0.025, 0.975])
    return Paired(
        n=n,
        n_lost=n_lost,
        n_gained=n_gained,
        old_accuracy=float(old.mean()),
        new_accuracy=float(new.mean()),
        loss=Interval(100.0 * (n_lost - n_gained) / n, float(low), float(high)),
        certainty=float((losses > 0).mean()),
    )
