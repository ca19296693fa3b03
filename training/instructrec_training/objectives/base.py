"""What the loop asks of a task, whatever shape its answers have.

Shapes: B rows, T tokens, C candidates, K tokens of a memory, H hidden size, W wordings.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from instructrec_deploy.core.manifest import TaskSpec
from instructrec_deploy.models.instruction_encoder import InstructionEncoder
from instructrec_deploy.text.tokenizer import EncodedCandidate, TextTokenizer
from instructrec_training.rows import Row, pad

CANDIDATE_BATCH = 256  # candidates read at once


class Objective(Protocol):
    """One task: how its rows become a loss, and how well the model does on them."""

    @property
    def headline(self) -> str:
        """The figure of `measure` that tells how well the task is done, larger is better."""

    def loss(self, rows: Sequence[Row]) -> Tensor:
        """Mean loss of a batch, with gradient."""

    def outputs(self, rows: Sequence[Row]) -> list[Tensor]:
        """What the model says about each row, for `measure`; called without gradient."""

    def outputs_under(self, wordings: Sequence[str], rows: Sequence[Row]) -> list[Tensor]:
        """`outputs` in each of the wordings, one under another: [W, ...] for each row."""

    def hits(self, rows: Sequence[Row], outputs: Sequence[Tensor]) -> list[bool] | None:
        """Whether each row is answered right; None where answers can be right in part."""

    def measure(
        self, rows: Sequence[Row], outputs: Sequence[Tensor], *, n_resamples: int = 1_000
    ) -> dict[str, Any]:
        """Figures by name, with intervals where there are resamples."""

    def calibrate(self, rows: Sequence[Row], outputs: Sequence[Tensor]) -> dict[str, Any]:
        """Fields of the task's entry in tasks.toml that validation rows decide."""

    def weights_change(self) -> None:
        """Forget what was kept of the model's weights as they were."""


class CandidateReader:
    """Reads texts and candidates by the one tower that both share."""

    def __init__(
        self, model: InstructionEncoder, tokenizer: TextTokenizer, *, instruction_weight: float
    ) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self._weight = instruction_weight

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.model.log_scale.device

    def batch(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """ids and mask [B, T] of rows, on the model's device."""
        ids, mask = pad([row.ids for row in rows], self.tokenizer.pad_id)
        return ids.to(self.device), mask.to(self.device)

    def vectors(self, instruction: str, words: Sequence[str]) -> Tensor:
        """Candidates of one instruction, read: [C, H], L2-normalized."""
        encoded = self.tokenizer.encode_candidates(
            instruction, words, instruction_weight=self._weight
        )
        parts = range(0, len(encoded), CANDIDATE_BATCH)
        return torch.cat(
            [
                self.model.encode(*self._padded(encoded[start : start + CANDIDATE_BATCH]))[1]
                for start in parts
            ]
        )

    def memories(
        self, instruction: str, words: Sequence[str]
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Candidates for the span reader.

        Returns:
            vectors [C, H]; states [C, K, H] below the reader's layers; for each candidate the
            positions of its own words among its K tokens.
        """
        encoded = self.tokenizer.encode_candidates(
            instruction, words, instruction_weight=self._weight
        )
        _, pooled, lower = self.model.encode_levels(*self._padded(encoded))
        own = [torch.arange(*row.own, device=self.device) for row in encoded]
        return pooled, lower, own

    def _padded(self, rows: Sequence[EncodedCandidate]) -> tuple[Tensor, Tensor, Tensor]:
        ids, mask = pad([row.ids for row in rows], self.tokenizer.pad_id)
        weights = torch.zeros(ids.shape)
        for i, row in enumerate(rows):
            weights[i, : len(row.weights)] = torch.tensor(row.weights)
        return ids.to(self.device), mask.to(self.device), weights.to(self.device)


class Wordings:
    """The wordings of a task's instruction: any of them in training, the default one else."""

    def __init__(self, name: str, spec: TaskSpec, rng: random.Random) -> None:
        self._default = spec.wording()
        self._all = [words for lang in spec.instructions.values() for words in lang] or [name]
        self._rng = rng
        self._asked = ""

    def pick(self, *, is_training: bool) -> str:
        """One wording."""
        if self._asked:
            return self._asked
        return self._rng.choice(self._all) if is_training else self._default

    @contextmanager
    def asking(self, wording: str) -> Iterator[None]:
        """Pick this wording, whichever the task has, as long as it is open."""
        self._asked = wording
        try:
            yield
        finally:
            self._asked = ""
