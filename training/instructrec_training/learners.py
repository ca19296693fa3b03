"""The model kinds as modules that turn a batch into a loss, for one shared training loop."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from instructrec_deploy.core.manifest import TaskSpec
from instructrec_deploy.core.task import SHAPES, Shape, TaskKind
from instructrec_deploy.models.checkpoint import Checkpoint
from instructrec_deploy.models.instruction_encoder import InstructionEncoder
from instructrec_deploy.text.tokenizer import TextTokenizer
from instructrec_training.data import TaskData
from instructrec_training.lora import ADAPTER_MARK
from instructrec_training.objectives.base import CandidateReader, Objective, Wordings
from instructrec_training.objectives.classify import ClassifyObjective
from instructrec_training.objectives.extract import ExtractObjective
from instructrec_training.objectives.heads import AnswerObjective, TagObjective
from instructrec_training.objectives.labelled import LabelObjective
from instructrec_training.objectives.rank import RankObjective
from instructrec_training.probe import fit_probe
from instructrec_training.recipe import TrainingPart
from instructrec_training.rows import Row, pad


class Learner(nn.Module):
    """What the loop needs of a model kind; `objectives` has one entry for each task."""

    objectives: list[Objective]

    def forward(self, task: int, rows: Sequence[Row]) -> Tensor:
        """The loss of a batch, under the name that data-parallel wrappers call."""
        return self.objectives[task].loss(rows)

    def features(self, task: int, rows: Sequence[Row]) -> list[Tensor] | None:
        """What the task's last linear layer reads of each row, [H]; None where it has none."""
        raise RuntimeError("a learner says what its head reads")

    def new_step(self, step: int) -> None:
        """A training step begins."""

    def new_evaluation(self) -> None:
        """The weights will not change until the next step."""

    def random_state(self) -> Any:
        """State of the learner's own random choices, as plain data."""
        return None

    def set_random_state(self, state: Any) -> None:
        """Put back what `random_state` gave."""

    @property
    def encoder(self) -> Any:
        """The pretrained part, as transformers made it."""
        raise RuntimeError("a learner names its encoder")

    def own_parameters(self) -> list[nn.Parameter]:
        """New weights, which take the head's learning rate; the rest is pretrained."""
        raise RuntimeError("a learner names its own weights")

    def reader_parameters(self) -> list[nn.Parameter]:
        """The span reader's layers, copies of pretrained ones; none where there is no reader."""
        return []


class EncoderLearner(Learner):
    """An instruction encoder over the recipe's tasks, with one vector learned per known label."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        tasks: Sequence[TaskData],
        tokenizer: TextTokenizer,
        settings: TrainingPart,
    ) -> None:
        super().__init__()
        if not isinstance(checkpoint.model, InstructionEncoder):
            raise TypeError("the checkpoint holds no instruction encoder")
        self.model = checkpoint.model
        hidden_size = checkpoint.section.hidden_size
        learned = checkpoint.label_vectors  # of a tuned checkpoint; an untuned one has none
        self.label_vectors = nn.ParameterDict(
            {
                str(number): nn.Parameter(
                    learned[task.name].clone()
                    if task.name in learned
                    else torch.zeros(len(task.spec.labels), hidden_size)
                )
                for number, task in enumerate(tasks)
                if has_label_vectors(task.spec)
            }
        )
        self.prior_weights = nn.ParameterDict(
            {
                str(number): nn.Parameter(torch.tensor(task.spec.prior_weight))
                for number, task in enumerate(tasks)
                if task.spec.kind is TaskKind.RANKING
            }
        )
        self._rng = random.Random(settings.seed)
        self._refresh_steps = settings.candidate_refresh_steps
        self._reader = CandidateReader(
            self.model, tokenizer, instruction_weight=checkpoint.section.instruction_weight
        )
        self.objectives = [self._objective(n, task, settings) for n, task in enumerate(tasks)]

    def new_step(self, step: int) -> None:
        if step % self._refresh_steps == 0:
            self.new_evaluation()

    def new_evaluation(self) -> None:
        for objective in self.objectives:
            objective.weights_change()

    def random_state(self) -> Any:
        return self._rng.getstate()

    def set_random_state(self, state: Any) -> None:
        version, numbers, gauss = state
        self._rng.setstate((version, tuple(numbers), gauss))

    @property
    def encoder(self) -> Any:
        return self.model.encoder

    def own_parameters(self) -> list[nn.Parameter]:
        pretrained = [*self.model.encoder.parameters(), *self.reader_parameters()]
        return _new_parameters(self, {id(p) for p in pretrained})

    def reader_parameters(self) -> list[nn.Parameter]:
        reader = self.model.reader
        return [] if reader is None else list(reader.layers.parameters())

    def features(self, task: int, rows: Sequence[Row]) -> list[Tensor] | None:
        if not isinstance(self.objectives[task], ClassifyObjective):
            return None
        return list(self.model.encode(*self._reader.batch(rows))[1].float().cpu())

    def _objective(self, number: int, task: TaskData, settings: TrainingPart) -> Objective:
        wordings = Wordings(task.name, task.spec, self._rng)
        if SHAPES[task.spec.kind] is Shape.EXTRACT:
            return ExtractObjective(task.spec, self._reader, wordings)
        if task.spec.kind is TaskKind.RANKING:
            weight = self.prior_weights[str(number)]
            return RankObjective(task.spec, self._reader, wordings, weight)
        learned = self.label_vectors[str(number)]
        return ClassifyObjective(task.spec, self._reader, wordings, learned, settings)


def has_label_vectors(spec: TaskSpec) -> bool:
    """Whether tuning learns a vector for each of the task's labels; candidates of rankings vary."""
    is_labelled = SHAPES[spec.kind] is Shape.CLASSIFY and spec.kind is not TaskKind.RANKING
    return is_labelled and bool(spec.labels)


class HeadLearner(Learner):
    """A Hugging Face model with a head (of texts, of tokens, of answers) and its one task."""

    def __init__(self, checkpoint: Checkpoint, task: TaskData, settings: TrainingPart) -> None:
        super().__init__()
        self.model: Any = checkpoint.model
        section = checkpoint.section
        objective: Objective
        if section.kind == "token-classification":
            objective = TagObjective(
                self.model, task.spec, pad_id=section.pad_id, tags=section.labels
            )
        elif section.kind == "question-answering":
            objective = AnswerObjective(self.model, task.spec, pad_id=section.pad_id)
        else:
            objective = HeadObjective(self.model, task, settings, pad_id=section.pad_id)
        self.objectives = [objective]

    @property
    def encoder(self) -> Any:
        return self.model.base_model

    def own_parameters(self) -> list[nn.Parameter]:
        base = {id(p) for p in self.model.base_model.parameters()}
        return _new_parameters(self, base)

    def features(self, task: int, rows: Sequence[Row]) -> list[Tensor] | None:
        objective = self.objectives[task]
        if not isinstance(objective, HeadObjective):
            return None
        return list(objective.read(rows)[1].float().cpu())


class HeadObjective(LabelObjective):
    """The logits of a classification head."""

    def __init__(self, model: Any, task: TaskData, settings: TrainingPart, *, pad_id: int) -> None:
        super().__init__(task.spec, settings)
        self._model = model
        self._pad_id = pad_id

    def read(self, rows: Sequence[Row]) -> tuple[Tensor, Tensor]:
        """Logits [B, L] and what the last linear layer reads of each row, [B, H]."""
        ids, mask = pad([row.ids for row in rows], self._pad_id)
        device = next(self._model.parameters()).device
        seen: list[Tensor] = []
        handle = self._last_layer().register_forward_pre_hook(
            lambda _module, inputs: seen.append(inputs[0])
        )
        try:
            logits: Tensor = self._model(
                input_ids=ids.to(device), attention_mask=mask.to(device)
            ).logits
        finally:
            handle.remove()
        features = seen[0]
        return logits, features[:, 0] if features.dim() == 3 else features

    def use_probe(self, rows: Sequence[Row], features: Tensor, inverse_l2: float) -> None:
        layer = self._last_layer()
        n, offset = layer.out_features, self.spec.offset or 0.0
        weight, bias = fit_probe(
            features,
            self.targets(rows),
            n_labels=n,
            inverse_l2=inverse_l2,
            offsets=torch.full((len(rows), n), -offset),
            has_bias=layer.bias is not None,
        )
        with torch.no_grad():
            layer.weight.copy_(weight)
            if layer.bias is not None:
                layer.bias.copy_(bias)

    def _last_layer(self) -> nn.Linear:
        return [m for m in self._model.modules() if isinstance(m, nn.Linear)][-1]


def _new_parameters(learner: Learner, pretrained: set[int]) -> list[nn.Parameter]:
    """Weights that no pretrained model brought, adapters inside it among them."""
    return [
        p
        for name, p in learner.named_parameters()
        if id(p) not in pretrained or ADAPTER_MARK in name
    ]
