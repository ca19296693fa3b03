"""How several tasks share an epoch: rows by the mixture, losses by how each task is learning."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

Mixture = Literal["proportional", "sqrt", "equal"]
EXPONENTS: dict[Mixture, float] = {"proportional": 1.0, "sqrt": 0.5, "equal": 0.0}
DWA_TEMPERATURE = 2.0  # as in the source


def row_factors(sizes: Sequence[int], weights: Sequence[float], mixture: Mixture) -> list[float]:
    """How often an epoch shows each task's rows; 0.5 shows half of them.

    The epoch has as many rows as under "proportional"; a task's share of them goes with
    weight * size ^ exponent, where the exponent is one over the sampling temperature.

    Source: arXiv:1910.10683 (T5), temperature-scaled mixing, section 3.5.2.
    """
    if mixture == "proportional":
        return list(weights)
    shares = [w * n ** EXPONENTS[mixture] for n, w in zip(sizes, weights, strict=True)]
    total = sum(w * n for n, w in zip(sizes, weights, strict=True)) / sum(shares)
    return [total * share / max(n, 1) for n, share in zip(sizes, shares, strict=True)]


class AdaptiveWeights:
    """Loss weights that favour tasks whose loss no longer falls as fast as the others'.

    After each epoch the weight of task k is K softmax(r_k / 2), r_k being its mean training loss
    of this epoch over that of the epoch before; the first two epochs weigh all alike.

    Source: arXiv:1803.10704 (dynamic weight average), section 3.3.
    """

    def __init__(self, n_tasks: int) -> None:
        self.weights = [1.0] * n_tasks
        self._before: list[float] = []  # mean losses of the epoch before
        self._sums = [0.0] * n_tasks
        self._counts = [0.0] * n_tasks

    def add(self, task: int, loss: float) -> None:
        """A batch of a task had this (unweighted) loss."""
        self._sums[task] += loss
        self._counts[task] += 1.0

    @property
    def seen(self) -> list[float]:
        """Sums and counts of this epoch, for adding up over processes."""
        return [*self._sums, *self._counts]

    def close_epoch(self, seen: Sequence[float]) -> None:
        """Weigh anew by the epoch that ended; `seen` is what all processes saw."""
        n = len(self.weights)
        sums, counts = seen[:n], seen[n:]
        if all(counts):
            means = [total / count for total, count in zip(sums, counts, strict=True)]
            if self._before:
                ratios = [
                    now / max(old, 1e-12) for now, old in zip(means, self._before, strict=True)
                ]
                top = max(ratios)
                powers = [math.exp((ratio - top) / DWA_TEMPERATURE) for ratio in ratios]
                self.weights = [n * power / sum(powers) for power in powers]
            self._before = means
        self._sums, self._counts = [0.0] * n, [0.0] * n

    def state(self) -> dict[str, Any]:
        """Plain data for the resume point."""
        return {
            "weights": self.weights,
            "before": self._before,
            "sums": self._sums,
            "counts": self._counts,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Put back what `state` gave."""
        self.weights, self._before = list(state["weights"]), list(state["before"])
        self._sums, self._counts = list(state["sums"]), list(state["counts"])
