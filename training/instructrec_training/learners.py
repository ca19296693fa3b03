"""The two model kinds as modules that turn a batch into logits, for one shared training loop.

Shapes: B rows, T tokens, L labels of the task, H hidden size.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from instructrec_deploy.models.checkpoint import Checkpoint
from instructrec_deploy.models.instruction_encoder import INITIAL_SCALE, InstructionEncoder
from instructrec_deploy.text.tokenizer import TextTokenizer
from instructrec_training.data import TaskData, pad
from instructrec_training.probe import fit_probe

CANDIDATE_BATCH = 256  # candidates read at once outside training


class Learner(nn.Module):
    """What the loop needs of a model kind."""

    def logits(self, task: int, ids: Tensor, mask: Tensor) -> Tensor:
        """Scores [B, L] of the task's labels for token ids [B, T]."""
        raise RuntimeError("a learner says how it scores")

    def features(self, ids: Tensor, mask: Tensor) -> Tensor:
        """What the last linear layer reads, [B, H]."""
        raise RuntimeError("a learner says what its head reads")

    def use_probe(self, task: int, features: Tensor, targets: Tensor, inverse_l2: float) -> None:
        """Start the task's own weights from a logistic regression on frozen features."""
        raise RuntimeError("a learner says where the probe goes")

    def new_step(self, step: int) -> None:
        """A training step begins."""

    def new_evaluation(self) -> None:
        """The weights will not change until the next step."""

    def random_state(self) -> Any:
        """State of the learner's own random choices, as plain data."""
        return None

    def set_random_state(self, state: Any) -> None:
        """Put back what `random_state` gave."""

    def own_parameters(self) -> list[nn.Parameter]:
        """New weights, which take the head's learning rate; the rest is pretrained."""
        raise RuntimeError("a learner names its own weights")

    def forward(self, task: int, ids: Tensor, mask: Tensor) -> Tensor:
        """Same as `logits`, under the name that data-parallel wrappers call."""
        return self.logits(task, ids, mask)


class EncoderLearner(Learner):
    """An instruction encoder over the recipe's tasks, with one vector learned per known label.

    A candidate is read by the query tower; a label of a tuned task adds its learned vector, which
    starts at zero. Reading all candidates with gradient in every step costs as much as the texts,
    so between two refreshes the vectors are kept and only the learned part moves.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        tasks: Sequence[TaskData],
        tokenizer: TextTokenizer,
        *,
        refresh_steps: int,
        seed: int,
    ) -> None:
        super().__init__()
        if not isinstance(checkpoint.model, InstructionEncoder):
            raise TypeError("the checkpoint holds no instruction encoder")
        self.model = checkpoint.model
        shapes = [(len(task.spec.labels), checkpoint.section.hidden_size) for task in tasks]
        learned = checkpoint.label_vectors  # of a tuned checkpoint; an untuned one has none
        self.label_vectors = nn.ParameterList(
            [
                nn.Parameter(learned[t.name].clone() if t.name in learned else torch.zeros(shape))
                for t, shape in zip(tasks, shapes, strict=True)
            ]
        )
        self._pad_id = checkpoint.section.pad_id
        self._weight = checkpoint.section.instruction_weight
        self._tokenizer = tokenizer
        self._tasks = tasks
        self._refresh_steps = refresh_steps
        self._rng = random.Random(seed)
        self._kept: dict[int, Tensor] = {}

    def new_step(self, step: int) -> None:
        if step % self._refresh_steps == 0:
            self._kept.clear()

    def new_evaluation(self) -> None:
        self._kept.clear()

    def random_state(self) -> Any:
        return self._rng.getstate()

    def set_random_state(self, state: Any) -> None:
        version, numbers, gauss = state
        self._rng.setstate((version, tuple(numbers), gauss))

    def own_parameters(self) -> list[nn.Parameter]:
        encoder = {id(p) for p in self.model.encoder.parameters()}
        return [p for p in self.parameters() if id(p) not in encoder]

    def candidate_vectors(self, task: int, wording: str) -> Tensor:
        """Read the task's labels under an instruction: [L, H], L2-normalized."""
        spec = self._tasks[task].spec
        words = [spec.descriptions.get(label, label) for label in spec.labels]
        encoded = self._tokenizer.encode_candidates(wording, words, instruction_weight=self._weight)
        device = self.model.log_scale.device
        vectors = []
        for start in range(0, len(encoded), CANDIDATE_BATCH):
            part = encoded[start : start + CANDIDATE_BATCH]
            ids, mask = pad([row for row, _ in part], self._pad_id)
            weights = torch.zeros(ids.shape)
            for i, (_, row_weights) in enumerate(part):
                weights[i, : len(row_weights)] = torch.tensor(row_weights)
            vectors.append(
                self.model.encode(ids.to(device), mask.to(device), weights.to(device))[1]
            )
        return torch.cat(vectors)

    def logits(self, task: int, ids: Tensor, mask: Tensor) -> Tensor:
        kept = self._kept.get(task)
        if kept is None:
            vectors = self.candidate_vectors(task, self._wording(task))
            self._kept[task] = vectors.detach()
        else:
            vectors = kept
        states, pooled = self.model.encode(ids, mask)
        return self.model.score(states, mask, pooled, vectors + self.label_vectors[task])

    def features(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.model.encode(ids, mask)[1]

    def use_probe(self, task: int, features: Tensor, targets: Tensor, inverse_l2: float) -> None:
        with torch.no_grad():
            vectors = self.candidate_vectors(task, self._wording(task)).cpu()
        weight, _ = fit_probe(
            features,
            targets,
            n_labels=len(vectors),
            inverse_l2=inverse_l2,
            offsets=INITIAL_SCALE * features @ vectors.T,
            has_bias=False,  # a label has a vector and nothing else
        )
        with torch.no_grad():
            self.label_vectors[task].copy_(weight / INITIAL_SCALE)

    def _wording(self, task: int) -> str:
        """A wording of the task's instruction: any in training, the default in evaluation."""
        spec = self._tasks[task].spec
        if not self.training:
            return spec.instruction(self._tasks[task].name).text
        return self._rng.choice([w for lang in spec.instructions.values() for w in lang])


class HeadLearner(Learner):
    """A Hugging Face sequence-classification model with its one task."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.model: Any = checkpoint.model

    def own_parameters(self) -> list[nn.Parameter]:
        base = {id(p) for p in self.model.base_model.parameters()}
        return [p for p in self.parameters() if id(p) not in base]

    def logits(self, task: int, ids: Tensor, mask: Tensor) -> Tensor:
        scores: Tensor = self.model(input_ids=ids, attention_mask=mask).logits
        return scores

    def features(self, ids: Tensor, mask: Tensor) -> Tensor:
        seen: list[Tensor] = []
        handle = self._last_layer().register_forward_pre_hook(
            lambda _module, inputs: seen.append(inputs[0])
        )
        try:
            self.logits(0, ids, mask)
        finally:
            handle.remove()
        features = seen[0]
        return features[:, 0] if features.dim() == 3 else features

    def use_probe(self, task: int, features: Tensor, targets: Tensor, inverse_l2: float) -> None:
        layer = self._last_layer()
        weight, bias = fit_probe(
            features, targets, n_labels=layer.out_features, inverse_l2=inverse_l2
        )
        with torch.no_grad():
            layer.weight.copy_(weight)
            if layer.bias is not None:
                layer.bias.copy_(bias)

    def _last_layer(self) -> nn.Linear:
        layers = [m for m in self.model.modules() if isinstance(m, nn.Linear)]
        return layers[-1]
