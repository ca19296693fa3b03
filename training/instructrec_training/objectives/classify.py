"""Classification with an instruction encoder: the task's labels, a learned vector for each.

Shapes: B rows, T tokens, L labels of the task, H hidden size, W wordings.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from instructrec_deploy.core.manifest import TaskSpec
from instructrec_training.objectives.base import CandidateReader, Wordings
from instructrec_training.objectives.labelled import LabelObjective
from instructrec_training.probe import fit_probe
from instructrec_training.recipe import TrainingPart
from instructrec_training.rows import Row


class ClassifyObjective(LabelObjective):
    """The task's labels as candidates.

    A candidate is read by the query tower; a label of a tuned task adds its learned vector, which
    starts at zero. Reading all candidates with gradient in every step costs as much as the texts,
    so between two refreshes the vectors are kept and only the learned part moves. In a share of
    the steps (`label_vector_dropout`) the learned part is left out: what labels mean then has to
    be learned by the tower, which reads the labels of others, too.
    """

    def __init__(
        self,
        spec: TaskSpec,
        reader: CandidateReader,
        wordings: Wordings,
        learned: nn.Parameter,
        settings: TrainingPart,
    ) -> None:
        super().__init__(spec, settings)
        self.learned = learned
        self._reader = reader
        self._wordings = wordings
        self._kept: Tensor | None = None
        self._kept_under: dict[tuple[str, ...], Tensor] = {}

    def weights_change(self) -> None:
        self._kept = None
        self._kept_under.clear()

    def read(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Scores [B, L] of the task's labels, and the texts' vectors [B, H]."""
        model = self._reader.model
        vectors = self._kept
        if vectors is None:
            vectors = self.candidate_vectors()
            self._kept = vectors.detach()
        ids, mask = self._reader.batch(rows)
        states, pooled = model.encode(ids, mask)
        dropped = model.training and float(torch.rand(())) < self._settings.label_vector_dropout
        own = vectors if dropped else vectors + self.learned
        return model.score(states, mask, pooled, own, kind=self.spec.kind), pooled

    def outputs_under(self, wordings: Sequence[str], rows: Sequence[Row]) -> list[Tensor]:
        """Scores [W, L] of each row; a text is read once for all wordings."""
        model, asked = self._reader.model, tuple(wordings)
        vectors = self._kept_under.get(asked)
        if vectors is None:
            vectors = torch.cat([self._vectors_under(wording) for wording in asked]).detach()
            self._kept_under[asked] = vectors
        ids, mask = self._reader.batch(rows)
        states, pooled = model.encode(ids, mask)
        own = vectors + self.learned.repeat(len(asked), 1)
        scores = model.score(states, mask, pooled, own, kind=self.spec.kind)
        return list(scores.view(len(rows), len(asked), -1).float().cpu())

    def _vectors_under(self, wording: str) -> Tensor:
        with self._wordings.asking(wording):
            return self.candidate_vectors()

    def candidate_vectors(self) -> Tensor:
        """The labels' words under a wording of the instruction: [L, H], L2-normalized."""
        wording = self._wordings.pick(is_training=self._reader.model.training)
        words = [self.spec.descriptions.get(label, label) for label in self.spec.labels]
        return self._reader.vectors(wording, words)

    def use_probe(self, rows: Sequence[Row], features: Tensor, inverse_l2: float) -> None:
        """Take the learned vectors from a logistic regression on pooled vectors [N, H]."""
        with torch.no_grad():
            vectors = self.candidate_vectors().cpu()
            scale = float(self._reader.model.log_scale.exp())
        weight, _ = fit_probe(
            features,
            self.targets(rows),
            n_labels=len(vectors),
            inverse_l2=inverse_l2,
            offsets=scale * features @ vectors.T - (self.spec.offset or 0.0),
            has_bias=False,  # a label has a vector and nothing else
        )
        with torch.no_grad():
            self.learned.copy_(weight / scale)
