"""Classification with an instruction encoder: the task's labels, a learned vector for each.

Shapes: B rows, T tokens, L labels of the task, H hidden size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from instructrec_deploy.core.manifest import TaskSpec
from instructrec_deploy.evaluation.metrics import class_metrics
from instructrec_deploy.models.instruction_encoder import INITIAL_SCALE
from instructrec_training.objectives.base import CandidateReader, Wordings
from instructrec_training.probe import fit_probe, fit_temperature
from instructrec_training.recipe import TrainingPart
from instructrec_training.rows import Row


class ClassifyObjective:
    """One of the task's labels is right.

    A candidate is read by the query tower; a label of a tuned task adds its learned vector, which
    starts at zero. Reading all candidates with gradient in every step costs as much as the texts,
    so between two refreshes the vectors are kept and only the learned part moves.
    """

    def __init__(
        self,
        spec: TaskSpec,
        reader: CandidateReader,
        wordings: Wordings,
        learned: nn.Parameter,
        settings: TrainingPart,
    ) -> None:
        self.spec = spec
        self.learned = learned
        self._reader = reader
        self._wordings = wordings
        self._settings = settings
        self._kept: Tensor | None = None

    @property
    def headline(self) -> str:
        return self._settings.metric

    def loss(self, rows: Sequence[Row]) -> Tensor:
        targets = torch.tensor([row.label for row in rows], device=self._reader.device)
        return functional.cross_entropy(
            self.logits(rows).float(), targets, label_smoothing=self._settings.label_smoothing
        )

    def outputs(self, rows: Sequence[Row]) -> list[Tensor]:
        return list(self.logits(rows).float().cpu())

    def measure(
        self, rows: Sequence[Row], outputs: Sequence[Tensor], *, n_resamples: int = 1_000
    ) -> dict[str, Any]:
        return measure_classes(self.spec, rows, outputs, n_resamples=n_resamples)

    def calibrate(self, rows: Sequence[Row], outputs: Sequence[Tensor]) -> dict[str, Any]:
        found = calibrate_classes(rows, outputs)
        self.spec = self.spec.model_copy(update=found)
        return found

    def weights_change(self) -> None:
        self._kept = None

    def logits(self, rows: Sequence[Row]) -> Tensor:
        """Scores [B, L] of the task's labels."""
        model = self._reader.model
        vectors = self._kept
        if vectors is None:
            vectors = self.candidate_vectors()
            self._kept = vectors.detach()
        ids, mask = self._reader.batch(rows)
        states, pooled = model.encode(ids, mask)
        return model.score(states, mask, pooled, vectors + self.learned)

    def candidate_vectors(self) -> Tensor:
        """The labels' words under a wording of the instruction: [L, H], L2-normalized."""
        wording = self._wordings.pick(is_training=self._reader.model.training)
        words = [self.spec.descriptions.get(label, label) for label in self.spec.labels]
        return self._reader.vectors(wording, words)

    def use_probe(self, features: Tensor, targets: Tensor, inverse_l2: float) -> None:
        """Start the learned vectors from a logistic regression on frozen vectors [N, H]."""
        with torch.no_grad():
            vectors = self.candidate_vectors().cpu()
        weight, _ = fit_probe(
            features,
            targets,
            n_labels=len(vectors),
            inverse_l2=inverse_l2,
            offsets=INITIAL_SCALE * features @ vectors.T,
            has_bias=False,  # a label has a vector and nothing else
        )
        with torch.no_grad():
            self.learned.copy_(weight / INITIAL_SCALE)


def measure_classes(
    spec: TaskSpec, rows: Sequence[Row], outputs: Sequence[Tensor], *, n_resamples: int
) -> dict[str, Any]:
    """Metrics of logits [L] of each row, by the labels' names.

    Probabilities are those of serving: softmax(logits / temperature). A model that has diverged
    (NaN) has none.
    """
    logits = torch.stack(list(outputs))
    scores = torch.softmax(logits.double() / spec.temperature, dim=1).amax(1)
    return class_metrics(
        [spec.labels[row.label] for row in rows],
        [spec.labels[guess] for guess in logits.argmax(1).tolist()],
        scores=[None if math.isnan(score) else score for score in scores.tolist()],
        n_resamples=n_resamples,
    ).to_dict()


def calibrate_classes(rows: Sequence[Row], outputs: Sequence[Tensor]) -> dict[str, Any]:
    """The temperature that suits validation rows best."""
    targets = torch.tensor([row.label for row in rows])
    return {"temperature": fit_temperature(torch.stack(list(outputs)), targets)}
