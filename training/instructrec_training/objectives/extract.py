"""Spans with an instruction encoder: entities of named types, or the answer to a question.

Shapes: B rows, T tokens, C candidates, K tokens of a memory, H hidden size,
W wordings.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from instructrec_deploy.core.manifest import TaskSpec
from instructrec_deploy.core.result import Span
from instructrec_deploy.tasks.extract import END, INSIDE, START, Window, find_entities
from instructrec_training.objectives.base import CandidateReader, Wordings
from instructrec_training.objectives.spans import SpanObjective, answer_loss
from instructrec_training.rows import Row, pad


class ExtractObjective(SpanObjective):
    """Spans of each of the task's types; or, for questions, one span for the row's own question."""

    def __init__(self, spec: TaskSpec, reader: CandidateReader, wordings: Wordings) -> None:
        super().__init__(spec)
        self._reader = reader
        self._wordings = wordings
        self._kept: tuple[Tensor, Tensor] | None = None

    def loss(self, rows: Sequence[Row]) -> Tensor:
        scores, mask = self.scores(rows)
        if self._is_question:
            return answer_loss(scores[:, :, 0], rows)
        return self._entity_loss(scores, mask, rows)

    def outputs_under(self, wordings: Sequence[str], rows: Sequence[Row]) -> list[Tensor]:
        """[W, T, C, 3] of each row. The reader sees text and candidates together: read W times."""
        found = []
        for wording in wordings:
            self._kept = None
            with self._wordings.asking(wording):
                found.append(self.outputs(rows))
        self._kept = None
        return [torch.stack(own) for own in zip(*found, strict=True)]

    def weights_change(self) -> None:
        self._kept = None

    def find(self, windows: Sequence[Window], text: str, threshold: float) -> list[Span]:
        return find_entities(windows, self.spec.labels, text, threshold=threshold)

    def scores(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """[B, T, C, 3] logits and the mask [B, T]."""
        model = self._reader.model
        assert model.reader is not None
        ids, mask = self._reader.batch(rows)
        lower = model.lower_states(ids, mask)
        if self._is_question:
            vectors, memory, memory_mask = self._read_questions(rows)
        else:
            vectors, memory = self._read_types()
            memory_mask = torch.ones(memory.shape[:2], dtype=torch.int64, device=mask.device)
        scores: Tensor = model.reader(lower, mask, memory, memory_mask, vectors)
        return scores, mask

    def _read_types(self) -> tuple[Tensor, Tensor]:
        """The task's types: vectors [1, C, H] and one memory [1, K, H] of all their words.

        They are few, so training reads them with gradient in every step; only an evaluation, whose
        weights stand still, keeps them.
        """
        is_training = self._reader.model.training
        if self._kept is not None and not is_training:
            return self._kept
        wording = self._wordings.pick(is_training=is_training)
        words = [self.spec.descriptions.get(label, label) for label in self.spec.labels]
        vectors, states, own = self._reader.memories(wording, words)
        memory = torch.cat([states[i, places] for i, places in enumerate(own)])
        found = vectors[None], memory[None]
        if not is_training:
            self._kept = found
        return found

    def _read_questions(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor, Tensor]:
        """Each row's own question: vectors [B, 1, H], memories [B, K, H], their mask [B, K]."""
        wording = self._wordings.pick(is_training=self._reader.model.training)
        questions = list(dict.fromkeys(row.words[0] for row in rows))
        vectors, states, own = self._reader.memories(wording, questions)
        which = torch.tensor([questions.index(row.words[0]) for row in rows], device=states.device)
        places, mask = pad([own_of.tolist() for own_of in own], 0)
        index = places.to(states.device)[:, :, None].expand(-1, -1, states.shape[-1])
        memory = torch.gather(states, 1, index)
        return vectors[which][:, None], memory[which], mask.to(states.device)[which]

    def _entity_loss(self, scores: Tensor, mask: Tensor, rows: Sequence[Row]) -> Tensor:
        """Binary cross-entropy on every mark of every token and type, summed over types."""
        wanted = torch.zeros(scores.shape)
        for i, row in enumerate(rows):
            for candidate, first, last in row.spans:
                wanted[i, first, candidate, START] = 1.0
                wanted[i, last, candidate, END] = 1.0
                wanted[i, first : last + 1, candidate, INSIDE] = 1.0
        losses = functional.binary_cross_entropy_with_logits(
            scores.float(), wanted.to(scores.device), reduction="none"
        )
        per_token = losses.sum(dim=(2, 3)) * mask
        return per_token.sum() / mask.sum()
