"""Spans with a Hugging Face head: a tag for each word, or the borders of an answer.

Shapes: B rows, T tokens, G tags.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from instructrec_deploy.core.manifest import TaskSpec
from instructrec_deploy.core.result import Span
from instructrec_deploy.core.tags import TagScheme
from instructrec_deploy.evaluation.targets import entities_of
from instructrec_deploy.tasks.extract import Window
from instructrec_deploy.tasks.tags import find_tagged, word_tags
from instructrec_training.objectives.spans import THRESHOLDS, SpanObjective, answer_loss
from instructrec_training.rows import Row, pad

IGNORED = -1  # a token that no word begins with


class HeadSpanObjective(SpanObjective):
    """A model of transformers that gives logits for each token."""

    def __init__(self, model: Any, spec: TaskSpec, *, pad_id: int) -> None:
        super().__init__(spec)
        self._model = model
        self._pad_id = pad_id

    def scores(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        ids, mask = pad([row.ids for row in rows], self._pad_id)
        device = next(self._model.parameters()).device
        ids, mask = ids.to(device), mask.to(device)
        return self._model(input_ids=ids, attention_mask=mask).logits, mask

    def outputs_under(self, wordings: Sequence[str], rows: Sequence[Row]) -> list[Tensor]:
        raise NotImplementedError("a head reads no instruction")

    def weights_change(self) -> None:
        """Nothing of them is kept."""


class TagObjective(HeadSpanObjective):
    """Cross-entropy of the tag of each word's first token, as the head's own scheme has it."""

    thresholds = (0.0, *THRESHOLDS)  # 0: the likeliest tags as they are
    usual_threshold = 0.0

    def __init__(self, model: Any, spec: TaskSpec, *, pad_id: int, tags: Sequence[str]) -> None:
        if "threshold" not in spec.model_fields_set:
            spec = spec.model_copy(update={"threshold": self.usual_threshold})
        super().__init__(model, spec, pad_id=pad_id)
        self._scheme = TagScheme.of(tags)

    def loss(self, rows: Sequence[Row]) -> Tensor:
        scores, mask = self.scores(rows)
        wanted = torch.full(mask.shape, IGNORED)
        for i, row in enumerate(rows):
            wanted[i, : len(row.ids)] = torch.tensor(self._wanted(row))
        return functional.cross_entropy(
            scores.float().flatten(0, 1),
            wanted.flatten().to(scores.device),
            ignore_index=IGNORED,
            reduction="sum",
        ) / (wanted != IGNORED).sum().clamp(min=1)

    def find(self, windows: Sequence[Window], text: str, threshold: float) -> list[Span]:
        labels = set(self.spec.labels)
        return find_tagged(windows, self._scheme, text, labels=labels, threshold=threshold)

    def _wanted(self, row: Row) -> list[int]:
        assert row.example is not None
        known = set(self.spec.labels)
        spans = [entity for entity in sorted(entities_of(row.example)) if entity[2] in known]
        return word_tags(row.offsets, row.example.text, spans, self._scheme)


class AnswerObjective(HeadSpanObjective):
    """Cross-entropy of the answer's first and last token."""

    def scores(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        logits, mask = super().scores(rows)
        return logits[:, :, None], mask

    def loss(self, rows: Sequence[Row]) -> Tensor:
        return answer_loss(self.scores(rows)[0][:, :, 0], rows)
