"""Beam search over one text: which continuations stay, and when no better one can come.

Shapes: K beams, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from instructrec_deploy.tasks.base import Floats

# Of beams that are not there yet: at the first step all would go on alike, so only one counts.
ABSENT = -1e9


@dataclass(frozen=True, slots=True)
class Ended:
    """A text that came to its end."""

    ids: tuple[int, ...]  # the stop token included, where there is one
    score: float  # sum of log probabilities / length ** length_penalty


@dataclass(frozen=True, slots=True)
class Move:
    """How the running beams go on: each from a beam before, by a token."""

    parents: list[int]  # K
    tokens: list[int]  # K


class BeamSearch:
    """Beam search for one text, step by step.

    Each step looks at the best continuations of all beams together. Those that end, among the K
    best, compete for K places of ended texts; the K best of the others run on. It is over when the
    K places are taken and even the best running beam, as long as it is now, scores no better than
    the worst of them.

    Args:
        n_beams: K.
        stop_ids: tokens that end a text.
        max_new_tokens: where every text ends.
        length_penalty: above 0 favours longer texts.

    Source: the search of transformers' `generate` with `early_stopping=False`, whose tokens the
    tests compare; written anew.
    """

    def __init__(
        self,
        n_beams: int,
        *,
        stop_ids: Collection[int],
        max_new_tokens: int,
        length_penalty: float = 1.0,
    ) -> None:
        self._n_beams = n_beams
        self._stops = frozenset(stop_ids)
        self._max_new = max_new_tokens
        self._penalty = length_penalty
        self._scores = np.full(n_beams, ABSENT, np.float32)
        self._scores[0] = 0.0
        self._texts: list[tuple[int, ...]] = [()] * n_beams
        self._ended: list[Ended] = []

    @property
    def best(self) -> Ended:
        """The best text that came to its end."""
        return self._ended[0]

    def advance(self, log_probabilities: Floats) -> Move | None:
        """Take a step.

        Args:
            log_probabilities: [K, V] of each running beam's next token.

        Returns:
            How the beams go on, or None when the search is over.
        """
        n_beams, n_words = log_probabilities.shape
        totals = (log_probabilities + self._scores[:, None]).ravel()
        # So many that K are left when every beam's best continuations are to stop.
        n_looked_at = min(len(totals), n_beams * max(2, 1 + len(self._stops)))
        best = np.argpartition(-totals, n_looked_at - 1)[:n_looked_at]
        best = best[np.argsort(-totals[best], kind="stable")]
        length = len(self._texts[0]) + 1
        weight = float(length) ** self._penalty
        running: list[tuple[int, int, float]] = []
        for place, flat in enumerate(best.tolist()):
            parent, token = divmod(flat, n_words)
            total = float(totals[flat])
            if token not in self._stops and length < self._max_new:
                running.append((parent, token, total))
            elif place < n_beams:
                self._ended.append(Ended((*self._texts[parent], token), total / weight))
        self._ended.sort(key=lambda ended: -ended.score)
        del self._ended[n_beams:]
        running = running[:n_beams]
        if len(running) < n_beams or self._cannot_improve(running[0][2] / weight):
            return None
        self._texts = [(*self._texts[parent], token) for parent, token, _ in running]
        self._scores = np.array([total for _, _, total in running], np.float32)
        return Move([parent for parent, _, _ in running], [token for _, token, _ in running])

    def _cannot_improve(self, score: float) -> bool:
        return len(self._ended) == self._n_beams and score <= self._ended[-1].score
