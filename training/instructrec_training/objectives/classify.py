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
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.evaluation.judging import make_judge
from instructrec_deploy.evaluation.metrics import class_metrics
from instructrec_deploy.models.instruction_encoder import INITIAL_SCALE
from instructrec_deploy.tasks.classify import decode_answers
from instructrec_training.calibrate import any_loss, calibrate, label_matrix
from instructrec_training.objectives.base import CandidateReader, Wordings
from instructrec_training.probe import fit_probe
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
        return headline_of(self.spec, self._settings)

    def loss(self, rows: Sequence[Row]) -> Tensor:
        return class_loss(self.spec, self.logits(rows), rows, self._settings)

    def outputs(self, rows: Sequence[Row]) -> list[Tensor]:
        return list(self.logits(rows).float().cpu())

    def measure(
        self, rows: Sequence[Row], outputs: Sequence[Tensor], *, n_resamples: int = 1_000
    ) -> dict[str, Any]:
        return measure_classes(self.spec, rows, outputs, n_resamples=n_resamples)

    def calibrate(self, rows: Sequence[Row], outputs: Sequence[Tensor]) -> dict[str, Any]:
        found = calibrate_classes(self.spec, rows, outputs)
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


def headline_of(spec: TaskSpec, settings: TrainingPart) -> str:
    """The figure that picks the epoch: the recipe's, or micro F1 where any label may be right."""
    return "micro_f1" if spec.decision == "any" else settings.metric


def class_loss(
    spec: TaskSpec, logits: Tensor, rows: Sequence[Row], settings: TrainingPart
) -> Tensor:
    """Cross-entropy of the right label, or of every label by itself where any may be right."""
    scores = logits.float()
    if spec.decision == "any":
        targets = label_matrix([row.labels for row in rows], len(spec.labels))
        return any_loss(scores, targets.to(scores.device), offset=spec.offset or 0.0)
    wanted = torch.tensor([row.label for row in rows], device=scores.device)
    return functional.cross_entropy(scores, wanted, label_smoothing=settings.label_smoothing)


def measure_classes(
    spec: TaskSpec, rows: Sequence[Row], outputs: Sequence[Tensor], *, n_resamples: int
) -> dict[str, Any]:
    """Metrics of logits [L] of each row, decided as the server decides.

    A model that has diverged (NaN) gives no probability, and no answer where rules decide.
    """
    logits = torch.stack(list(outputs))
    if spec.deciding().is_plain:
        scores = torch.softmax(logits.double() / spec.temperature, dim=1).amax(1)
        return class_metrics(
            [spec.labels[row.label] for row in rows],
            [spec.labels[guess] for guess in logits.argmax(1).tolist()],
            scores=[None if math.isnan(score) else score for score in scores.tolist()],
            n_resamples=n_resamples,
        ).to_dict()
    answers = decode_answers(
        logits.numpy(),
        spec.labels,
        temperature=spec.temperature,
        top_ks=[1] * len(rows),
        decision=spec.deciding(),
    )
    examples = [row.example for row in rows if row.example is not None]
    judge = make_judge(examples, none_label=spec.none_label)
    return judge.measure([Prediction((answer,)) for answer in answers]).to_dict()


def calibrate_classes(
    spec: TaskSpec, rows: Sequence[Row], outputs: Sequence[Tensor]
) -> dict[str, Any]:
    """What validation rows decide: temperature, thresholds, what fits none."""
    logits = torch.stack(list(outputs))
    if spec.decision == "any":
        return calibrate(spec, logits, label_matrix([r.labels for r in rows], len(spec.labels)))
    outside = torch.tensor([row.is_outside for row in rows])
    targets = torch.tensor([row.label for row in rows])[~outside]
    return calibrate(
        spec,
        logits[~outside],
        targets,
        none_logits=logits[outside] if bool(outside.any()) else None,
    )
