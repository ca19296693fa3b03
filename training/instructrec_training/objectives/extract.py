"""Spans with an instruction encoder: entities of named types, or the answer to a question.

Shapes: B rows, T tokens, C candidates, K tokens of a memory, H hidden size,
W wordings.
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
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.evaluation.questions import Replied, question_metrics, reads_as_chinese
from instructrec_deploy.evaluation.spans import entity_metrics
from instructrec_deploy.evaluation.targets import entities_of, references_of
from instructrec_deploy.tasks.extract import (
    END,
    INSIDE,
    START,
    Window,
    find_answers,
    find_entities,
)
from instructrec_training.objectives.base import CandidateReader, Wordings
from instructrec_training.rows import Row, pad

THRESHOLDS = [round(0.1 + 0.05 * n, 2) for n in range(16)]  # tried on validation rows


class ExtractObjective:
    """Spans of each of the task's types; or, for questions, one span for the row's own question."""

    def __init__(self, spec: TaskSpec, reader: CandidateReader, wordings: Wordings) -> None:
        self.spec = spec
        self._reader = reader
        self._wordings = wordings
        self._kept: tuple[Tensor, Tensor] | None = None
        self._is_question = spec.kind is TaskKind.QA

    @property
    def headline(self) -> str:
        return "f1" if self._is_question else "entity_f1"

    def loss(self, rows: Sequence[Row]) -> Tensor:
        scores, mask = self._scores(rows)
        if self._is_question:
            return self._question_loss(scores, mask, rows)
        return self._entity_loss(scores, mask, rows)

    def outputs(self, rows: Sequence[Row]) -> list[Tensor]:
        scores, _ = self._scores(rows)
        found = scores.float().cpu()
        return [found[i, : len(row.ids)].clone() for i, row in enumerate(rows)]

    def outputs_under(self, wordings: Sequence[str], rows: Sequence[Row]) -> list[Tensor]:
        """[W, T, C, 3] of each row. The reader sees text and candidates together: read W times."""
        found = []
        for wording in wordings:
            self._kept = None
            with self._wordings.asking(wording):
                found.append(self.outputs(rows))
        self._kept = None
        return [torch.stack(own) for own in zip(*found, strict=True)]

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
        figures = {t: self._measure_entities(texts, t, 0)["entity_f1"] for t in THRESHOLDS}
        best = max(THRESHOLDS, key=lambda t: (figures[t], -abs(t - 0.5)))
        self.spec = self.spec.model_copy(update={"threshold": best})
        return {"threshold": best}

    def weights_change(self) -> None:
        self._kept = None

    def _measure_entities(
        self, texts: Sequence[tuple[Example, list[Window]]], threshold: float, n_resamples: int
    ) -> dict[str, Any]:
        gold, guessed = [], []
        for example, windows in texts:
            found = find_entities(windows, self.spec.labels, example.text, threshold=threshold)
            gold.append(entities_of(example))
            guessed.append({(span.start, span.end, span.label) for span in found})
        return entity_metrics(gold, guessed, n_resamples=n_resamples).to_dict()

    def _scores(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """[B, T, C, 3] logits and the mask [B, T]."""
        model = self._reader.model
        assert model.reader is not None
        ids, mask = self._reader.batch(rows)
        _, _, lower = model.encode_levels(ids, mask)
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

    def _question_loss(self, scores: Tensor, mask: Tensor, rows: Sequence[Row]) -> Tensor:
        """Cross-entropy of first and last token; [CLS] where the window has no answer.

        Tokens of nothing in the passage (control tokens, the question behind it) are no answers.
        """
        closed = torch.ones(mask.shape, dtype=torch.bool)
        for i, row in enumerate(rows):
            closed[i, 0] = False
            for place, (start, end) in enumerate(row.offsets):
                closed[i, place] &= end <= start
        closed = closed.to(scores.device)
        total = torch.zeros((), device=scores.device)
        for mark, place in ((START, 1), (END, 2)):
            logits = scores[:, :, 0, mark].float().masked_fill(closed, -1e4)
            wanted = [row.spans[0][place] if row.spans else 0 for row in rows]
            total = total + functional.cross_entropy(
                logits, torch.tensor(wanted, device=scores.device)
            )
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
