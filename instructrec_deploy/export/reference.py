"""What the checkpoint itself answers, in torch: the truth an exported bundle is held against.

Shapes: B texts, T tokens, C candidates, H hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.manifest import TaskSpec
from instructrec_deploy.core.request import Request
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.export.samples import Sample
from instructrec_deploy.models.checkpoint import Checkpoint
from instructrec_deploy.models.instruction_encoder import InstructionEncoder
from instructrec_deploy.runtime.reading import words_behind
from instructrec_deploy.tasks.extract import Window
from instructrec_deploy.text.render import render_request
from instructrec_deploy.text.tokenizer import EncodedCandidate

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
BATCH_ITEMS = 16


class Reference:
    """A checkpoint that answers a task's question, slowly and surely."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        section = checkpoint.section
        self._checkpoint = checkpoint
        self.model = checkpoint.model.eval()
        self._pad_id = section.pad_id
        self.tokenizer = checkpoint.open_tokenizer()
        self._sought: tuple[str, tuple[Tensor, Tensor]] | None = None  # by an instruction's key

    def batches(self, requests: Sequence[Request]) -> list[dict[str, Ints]]:
        """The encoder's inputs for texts of any length, those of like length together."""
        rows = sorted(self._read(requests), key=len)
        parts = [rows[i : i + BATCH_ITEMS] for i in range(0, len(rows), BATCH_ITEMS)]
        found = []
        for part in parts:
            ids, mask = self._pad(part)
            found.append({"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
        return found

    @torch.no_grad()
    def logits(self, name: str, spec: TaskSpec, requests: Sequence[Request]) -> Floats:
        """[B, C] float32 in the order of the task's labels, priors included."""
        score = self.scorer(name, spec)
        rows = self._read(requests)
        parts = [rows[start : start + BATCH_ITEMS] for start in range(0, len(rows), BATCH_ITEMS)]
        result: Floats = torch.cat([score(*self._pad(part)) for part in parts]).numpy()
        return result

    @torch.no_grad()
    def scorer(self, name: str, spec: TaskSpec) -> Callable[[Tensor, Tensor], Tensor]:
        """Ids and mask, [B, T] int64 each, -> what `logits` gives; the candidates are read once."""
        model = self.model
        priors = torch.tensor(spec.instruction(name).prior_logits or [0.0])
        if not isinstance(model, InstructionEncoder):
            return lambda ids, mask: model(input_ids=ids, attention_mask=mask)[0].float() + priors
        vectors = self.candidate_vectors(name, spec)

        def score(ids: Tensor, mask: Tensor) -> Tensor:
            logits = model.score(*self._encode(ids, mask), vectors, kind=spec.kind)
            return logits.float() + priors

        return score

    def _read(self, requests: Sequence[Request]) -> list[list[int]]:
        passages = [render_request(request) for request in requests]
        return [e.ids for e in self.tokenizer.encode_passages(passages, use_offsets=False)]

    @torch.no_grad()
    def windows(self, name: str, spec: TaskSpec, sample: Sample) -> list[Window]:
        """The scores of a text's windows for what a task seeks.

        Raises:
            RequestError: the task cannot be asked.
        """
        instruction = spec.instruction(name, sample.question)
        joint_questions = self._checkpoint.section.joint_questions
        second = words_behind(instruction, joint_questions=joint_questions)
        windows = self.tokenizer.encode_windows(sample.request.text, second=second)
        scores = self._read_spans(instruction, [window.ids for window in windows])
        return [Window(s, w.offsets) for s, w in zip(scores, windows, strict=True)]

    def _read_spans(self, instruction: Instruction, rows: Sequence[list[int]]) -> list[Floats]:
        """The scores of each row of ids."""
        model = self.model
        if not isinstance(model, InstructionEncoder):
            is_question = instruction.kind is TaskKind.QA
            told = []
            for ids_of in rows:
                ids, mask = self._pad([ids_of])
                logits = model(input_ids=ids, attention_mask=mask)[0][0].float().numpy()
                told.append(logits[:, None] if is_question else logits)
            return told
        assert model.reader is not None
        memory, vectors = self._memory(model, instruction)
        near = torch.ones(memory.shape[:2], dtype=torch.int64)
        found = []
        for ids_of in rows:
            ids, mask = self._pad([ids_of])
            lower = model.lower_states(ids, mask)
            found.append(model.reader(lower, mask, memory, near, vectors)[0].float().numpy())
        return found

    def _memory(self, model: InstructionEncoder, instruction: Instruction) -> tuple[Tensor, Tensor]:
        """What is sought, read: memory [1, K, H] and vectors [1, C, H]; the last one is kept."""
        if self._sought is not None and self._sought[0] == instruction.key:
            return self._sought[1]
        memories, parts = [], []
        for row in self._candidate_rows(instruction):
            ids, mask = self._pad([row.ids])
            _, vector, lower = model.encode_levels(ids, mask, torch.tensor([row.weights]))
            parts.append(vector)
            memories.append(lower[0, slice(*row.own)])
        found = torch.cat(memories)[None], torch.cat(parts)[None]
        self._sought = instruction.key, found
        return found

    def _candidate_rows(self, instruction: Instruction) -> list[EncodedCandidate]:
        return self.tokenizer.encode_candidates(
            instruction.text,
            [c.words for c in instruction.candidates],
            instruction_weight=self._checkpoint.section.instruction_weight,
        )

    def _encode(self, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        assert isinstance(self.model, InstructionEncoder)
        states, pooled = self.model.encode(ids, mask)
        return states, mask, pooled

    @torch.no_grad()
    def candidate_vectors(self, name: str, spec: TaskSpec) -> Tensor:
        """[C, H] of a task's labels, learned parts included; of an instruction encoder alone."""
        assert isinstance(self.model, InstructionEncoder)
        rows = self._candidate_rows(spec.instruction(name))
        parts = []
        for start in range(0, len(rows), BATCH_ITEMS):
            batch = rows[start : start + BATCH_ITEMS]
            ids, mask = self._pad([row.ids for row in batch])
            weights = torch.zeros(ids.shape)
            for index, row in enumerate(batch):
                weights[index, : len(row.weights)] = torch.tensor(row.weights)
            parts.append(self.model.encode(ids, mask, weights)[1])
        vectors = torch.cat(parts)
        learned = self._checkpoint.label_vectors.get(name)
        return vectors if learned is None else vectors + learned.to(vectors.dtype)

    def _pad(self, rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
        width = max(len(row) for row in rows)
        ids = torch.full((len(rows), width), self._pad_id)
        mask = torch.zeros((len(rows), width), dtype=torch.int64)
        for index, row in enumerate(rows):
            ids[index, : len(row)] = torch.tensor(row)
            mask[index, : len(row)] = 1
        return ids, mask
