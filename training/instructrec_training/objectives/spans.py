"""What all tasks of spans share: their figures, and the threshold that validation rows decide.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from instructrec_deploy.core.example import Example
from instructrec_deploy.core.manifest import TaskSpec
from instructrec_deploy.core.result import Span
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.evaluation.questions import Replied, question_metrics, reads_as_chinese
from instructrec_deploy.evaluation.spans import entity_metrics
from instructrec_deploy.evaluation.targets import entities_of, references_of
from instructrec_deploy.tasks.extract import END, START, Window, find_answers
from instructrec_training.rows import Row

THRESHOLDS = tuple(round(0.1 + 0.05 * n, 2) for n in range(16))  # tried on validation rows


class SpanObjective:
    """Entities of the task's types; or, for questions, one span for the row's own question."""

    thresholds: tuple[float, ...] = THRESHOLDS
    usual_threshold = 0.5  # of those that do as well the one nearest to it

    def __init__(self, spec: TaskSpec) -> None:
        self.spec = spec
        self._is_question = spec.kind is TaskKind.QA

    @property
    def headline(self) -> str:
        return "f1" if self._is_question else "entity_f1"

    def outputs(self, rows: Sequence[Row]) -> list[Tensor]:
        scores, _ = self.scores(rows)
        found = scores.float().cpu()
        return [found[i, : len(row.ids)].clone() for i, row in enumerate(rows)]

    def hits(self, rows: Sequence[Row], outputs: Sequence[Tensor]) -> list[bool] | None:
        return None

    def measure(
        self, rows: Sequence[Row], outputs: Sequence[Tensor], *, n_resamples: int = 1_000
    ) -> dict[str, Any]:
        texts = list(_by_text(rows, outputs))
        if not self._is_question:
            return self._measure_entities(texts, self.spec.threshold, n_resamples)
        replies = []
        for example, windows in texts:
            best = next(iter(find_answers(windows, example.text, top_k=1)), None)
            is_chinese = reads_as_chinese(example.lang, example.text)
            replies.append(Replied(best.text if best else "", references_of(example), is_chinese))
        return question_metrics(replies, n_resamples=n_resamples).to_dict()

    def calibrate(self, rows: Sequence[Row], outputs: Sequence[Tensor]) -> dict[str, Any]:
        """The threshold with the best entity F1 on validation rows."""
        if self._is_question:
            return {}
        texts = list(_by_text(rows, outputs))
        figures = {t: self._measure_entities(texts, t, 0)["entity_f1"] for t in self.thresholds}
        best = max(self.thresholds, key=lambda t: (figures[t], -abs(t - self.usual_threshold)))
        self.spec = self.spec.model_copy(update={"threshold": best})
        return {"threshold": best}

    def scores(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """[B, T, ...] logits and the mask [B, T]."""
        raise NotImplementedError

    def find(self, windows: Sequence[Window], text: str, threshold: float) -> list[Span]:
        """The entities of a text."""
        raise NotImplementedError

    def _measure_entities(
        self, texts: Sequence[tuple[Example, list[Window]]], threshold: float, n_resamples: int
    ) -> dict[str, Any]:
        gold, guessed = [], []
        for example, windows in texts:
            found = self.find(windows, example.text, threshold)
            gold.append(entities_of(example))
            guessed.append({(span.start, span.end, span.label) for span in found})
        return entity_metrics(gold, guessed, n_resamples=n_resamples).to_dict()


def answer_loss(scores: Tensor, rows: Sequence[Row]) -> Tensor:
    """Cross-entropy of first and last token; [CLS] where the window has no answer.

    Tokens of nothing in the passage (control tokens, the question beside it) are no answers.

    Args:
        scores: [B, T, 2] logits of each token to be the first and the last.
        rows: with offsets, and the answer as their only span.
    """
    closed = torch.ones(scores.shape[:2], dtype=torch.bool)
    for i, row in enumerate(rows):
        closed[i, 0] = False
        for place, (start, end) in enumerate(row.offsets):
            closed[i, place] &= end <= start
    closed = closed.to(scores.device)
    total = torch.zeros((), device=scores.device)
    for mark, place in ((START, 1), (END, 2)):
        logits = scores[:, :, mark].float().masked_fill(closed, -1e4)
        wanted = [row.spans[0][place] if row.spans else 0 for row in rows]
        total = total + functional.cross_entropy(logits, torch.tensor(wanted, device=scores.device))
    return total / 2


def _by_text(
    rows: Sequence[Row], outputs: Sequence[Tensor]
) -> Iterator[tuple[Example, list[Window]]]:
    """Each text with all its windows, which stand one after another."""
    pairs = zip(rows, outputs, strict=True)
    for _, group in itertools.groupby(pairs, key=lambda pair: id(pair[0].example)):
        windows = list(group)
        example = windows[0][0].example
        assert example is not None
        yield example, [Window(scores.numpy(), row.offsets) for row, scores in windows]
