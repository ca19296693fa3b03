"""Optimizer and schedule by their names: what torch and transformers offer, passed through."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau
from transformers import Adafactor, get_scheduler

from instructrec_deploy.core.errors import ConfigError
from instructrec_training.learners import Learner
from instructrec_training.recipe import TrainingPart

FOLLOWS_METRIC = ("reduce_lr_on_plateau", "greedy")  # stepped by validation, not by steps


def build_optimizer(learner: Learner, settings: TrainingPart) -> torch.optim.Optimizer:
    """The optimizer over all weights that may move.

    Source: AdamW arXiv:1711.05101; Adafactor arXiv:1804.04235, with the rates of the recipe in
    place of its own relative steps.
    """
    optimizer = _build(parameter_groups(learner, settings), settings)
    if settings.pull_to_base:
        pull_to_start(optimizer, learner.encoder.parameters(), settings.pull_to_base)
    return optimizer


def _build(groups: list[dict[str, Any]], settings: TrainingPart) -> torch.optim.Optimizer:
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=settings.momentum)
    if settings.optimizer == "adafactor":
        found: torch.optim.Optimizer = Adafactor(  # type: ignore[no-untyped-call]
            groups, relative_step=False, scale_parameter=False, warmup_init=False
        )
        return found
    return torch.optim.AdamW(groups, betas=settings.betas, fused=True)


def pull_to_start(
    optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor], strength: float
) -> None:
    """After each step move weights towards where they stand now, by rate x strength of the way.

    Weight decay is the same with zero in place of the start. Weights that the optimizer does not
    move are left alone.

    Source: L2-SP, arXiv:1802.01483; apart from the gradient, as arXiv:1711.05101 does with decay.
    """
    starts = {id(p): p.detach().clone() for p in parameters if p.requires_grad}

    @torch.no_grad()
    def pull(stepped: torch.optim.Optimizer, *_: Any) -> None:
        for group in stepped.param_groups:
            share = min(1.0, float(group["lr"]) * strength)
            for p in group["params"]:
                start = starts.get(id(p))
                if start is not None:
                    p.lerp_(start.to(p.device), share)

    optimizer.register_step_post_hook(pull)


def parameter_groups(learner: Learner, settings: TrainingPart) -> list[dict[str, Any]]:
    """Optimizer groups: each part of the model at its rate; no decay on biases, norms, scalars."""
    pretrained, decay = settings.learning_rate, settings.weight_decay
    rates = {id(p): settings.head_learning_rate for p in learner.own_parameters()}
    reader = settings.reader_learning_rate or pretrained
    rates |= {id(p): reader for p in learner.reader_parameters()}
    groups: dict[tuple[float, bool], list[Tensor]] = {}
    for p in learner.parameters():
        if p.requires_grad:
            groups.setdefault((rates.get(id(p), pretrained), p.ndim < 2), []).append(p)
    return [
        {"params": groups[key], "lr": key[0], "weight_decay": 0.0 if key[1] else decay}
        for key in sorted(groups)
    ]


class Schedule:
    """A schedule of transformers: stepped with the optimizer, or by the validation metric."""

    def __init__(
        self, optimizer: torch.optim.Optimizer, settings: TrainingPart, *, n_steps: int
    ) -> None:
        options: dict[str, Any] = dict(settings.schedule_options)
        if settings.schedule in FOLLOWS_METRIC:
            options.setdefault("mode", "max")  # the metric is better when larger
        try:
            self._inner: Any = get_scheduler(
                settings.schedule,
                optimizer,
                num_warmup_steps=int(settings.warmup_share * n_steps),
                num_training_steps=n_steps,
                scheduler_specific_kwargs=options or None,
            )
        except (TypeError, ValueError) as error:
            raise ConfigError(
                f"training.schedule {settings.schedule!r}: {error}",
                hint="mend training.schedule_options: they go to transformers' get_scheduler",
            ) from error
        self._follows_metric = settings.schedule in FOLLOWS_METRIC or isinstance(
            self._inner, ReduceLROnPlateau
        )

    def step(self, *, at_least: int = 0) -> None:
        """An optimizer step was made; where time runs faster, on to the place that it has reached.

        Schedules of steps are functions of their place alone, so that they can move on by several.
        """
        if not self._follows_metric:
            self._inner.last_epoch = max(self._inner.last_epoch, at_least - 1)
            self._inner.step()

    def validated(self, metric: float) -> None:
        """An epoch's validation metric is known."""
        if self._follows_metric:
            self._inner.step(metric)

    def state_dict(self) -> dict[str, Any]:
        """Plain data for the resume point."""
        found: dict[str, Any] = self._inner.state_dict()
        return found

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Put back what `state_dict` gave."""
        self._inner.load_state_dict(state)
