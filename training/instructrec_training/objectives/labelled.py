"""What every task of labels shares, whatever gives its logits: loss, metrics, calibration.

Shapes: B rows, L labels of the task.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from instructrec_deploy.core.manifest import TaskSpec
from instructrec_deploy.core.result import Answer, Prediction
from instructrec_deploy.evaluation.judging import make_judge
from instructrec_deploy.evaluation.metrics import class_metrics
from instructrec_deploy.tasks.classify import decode_answers
from instructrec_training.calibrate import any_loss, calibrate, initial_offset, label_matrix
from instructrec_training.objectives.class_loss import contrast, distillation, focal_loss
from instructrec_training.recipe import TrainingPart
from instructrec_training.rows import Row


class LabelObjective:
    """One of the task's labels is right, or any of them; a subclass gives the logits."""

    def __init__(self, spec: TaskSpec, settings: TrainingPart) -> None:
        self.spec = spec
        self.teacher: Mapping[str, Tensor] = {}  # a row's text -> its teacher's logits [L]
        self._settings = settings

    def read(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Scores [B, L] of the task's labels, and the vectors [B, H] they are made of."""
        raise RuntimeError("an objective says how it scores")

    def logits(self, rows: Sequence[Row]) -> Tensor:
        """Scores [B, L] of the task's labels."""
        return self.read(rows)[0]

    @property
    def headline(self) -> str:
        """The recipe's metric, or micro F1 where any label may be right."""
        return "micro_f1" if self.spec.decision == "any" else self._settings.metric

    def loss(self, rows: Sequence[Row]) -> Tensor:
        """Cross-entropy of the right label, or of every label by itself where any may be right;
        and what the recipe adds to that of single labels: a teacher, a contrast of texts."""
        settings = self._settings
        logits, vectors = self.read(rows)
        scores, wanted = logits.float(), self.targets(rows).to(logits.device)
        if self.spec.decision == "any":
            offset, gamma = self.spec.offset or 0.0, settings.focal_gamma
            if gamma:
                return focal_loss(scores - offset, wanted, gamma=gamma)
            return any_loss(scores, wanted, offset=offset)
        loss = focal_loss(
            scores, wanted, gamma=settings.focal_gamma, smoothing=settings.label_smoothing
        )
        if self.teacher:
            theirs = torch.stack([self.teacher[row.text] for row in rows]).to(scores.device)
            distance = distillation(scores, theirs, settings.distil_temperature)
            loss = (1.0 - settings.distil_weight) * loss + settings.distil_weight * distance
        if settings.contrastive_weight:
            apart = contrast(vectors.float(), wanted, settings.contrastive_temperature)
            loss = loss + settings.contrastive_weight * apart
        return loss

    def targets(self, rows: Sequence[Row]) -> Tensor:
        """Positions [B] of the right labels; [B, L], 1 where one is right, where any may be."""
        if self.spec.decision == "any":
            return label_matrix([row.labels for row in rows], len(self.spec.labels))
        return torch.tensor([row.label for row in rows])

    def use_probe(self, rows: Sequence[Row], features: Tensor, inverse_l2: float) -> None:
        """Start from a logistic regression on frozen vectors [N, H] of rows."""
        raise RuntimeError("an objective says where the probe goes")

    def outputs(self, rows: Sequence[Row]) -> list[Tensor]:
        return list(self.logits(rows).float().cpu())

    def outputs_under(self, wordings: Sequence[str], rows: Sequence[Row]) -> list[Tensor]:
        """The same in any words: only an objective that reads an instruction says otherwise."""
        return [scores.expand(len(wordings), -1) for scores in self.outputs(rows)]

    def hits(self, rows: Sequence[Row], outputs: Sequence[Tensor]) -> list[bool] | None:
        """Whether the label decided on is the right one; None where any may be right."""
        if self.spec.decision == "any":
            return None
        logits = torch.stack(list(outputs))
        if self.spec.deciding().is_plain:
            guesses = logits.argmax(1).tolist()
            return [row.label == guess for row, guess in zip(rows, guesses, strict=True)]
        labels = self.spec.labels
        return [
            (answer.label or self.spec.none_label)
            == (self.spec.none_label if row.is_outside else labels[row.label])
            for row, answer in zip(rows, decode(self.spec, logits), strict=True)
        ]

    def measure(
        self, rows: Sequence[Row], outputs: Sequence[Tensor], *, n_resamples: int = 1_000
    ) -> dict[str, Any]:
        return measure_classes(self.spec, rows, outputs, n_resamples=n_resamples)

    def calibrate(self, rows: Sequence[Row], outputs: Sequence[Tensor]) -> dict[str, Any]:
        """Temperature, thresholds, what fits none; the objective decides by them from now on."""
        logits = torch.stack(list(outputs))
        if self.spec.decision == "any":
            found = calibrate(self.spec, logits, self.targets(rows))
        else:
            outside = torch.tensor([row.is_outside for row in rows])
            found = calibrate(
                self.spec,
                logits[~outside],
                self.targets(rows)[~outside],
                none_logits=logits[outside] if bool(outside.any()) else None,
            )
        self.spec = self.spec.model_copy(update=found)
        return found

    def centre(self, outputs: Sequence[Tensor]) -> None:
        """Start an "any" task from where the untuned model's scores stand."""
        offset = initial_offset(torch.stack(list(outputs)))
        self.spec = self.spec.model_copy(update={"offset": offset})

    def weights_change(self) -> None:
        """Nothing is kept."""


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
    answers = decode(spec, logits)
    examples = [row.example for row in rows if row.example is not None]
    judge = make_judge(examples, none_label=spec.none_label)
    return judge.measure([Prediction((answer,)) for answer in answers]).to_dict()


def decode(spec: TaskSpec, logits: Tensor) -> list[Answer]:
    """The answers that the server would give to logits [B, L]."""
    return decode_answers(
        logits.numpy(),
        spec.labels,
        temperature=spec.temperature,
        top_ks=[1] * len(logits),
        decision=spec.deciding(),
    )
