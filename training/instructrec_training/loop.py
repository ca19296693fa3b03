"""The training loop: steps, validation, early stopping, exact resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from torch import Tensor, nn

from instructrec_deploy.core.errors import ConfigError, TrainingDiverged
from instructrec_deploy.core.memory import return_freed_memory
from instructrec_training.averaging import MovingAverage
from instructrec_training.data import TaskData, epoch_batches, outputs_by_row
from instructrec_training.injected import without_attacks
from instructrec_training.learners import Learner
from instructrec_training.memory import RETURN_STEPS
from instructrec_training.mixture import AdaptiveWeights
from instructrec_training.objectives.labelled import LabelObjective
from instructrec_training.optimizers import Schedule, build_optimizer
from instructrec_training.perturbation import EmbeddingPerturbation
from instructrec_training.recipe import TrainingPart
from instructrec_training.rows import Row
from instructrec_training.state import (
    BEST_FILE,
    RESUME_FILE,
    generators,
    set_generators,
    write_state,
)
from instructrec_training.tracking import Tracker

EVALUATION_BATCH = 128
Read = Callable[[Sequence[Row]], list[Tensor] | None]  # rows -> an output each; None: no task's


@dataclass(slots=True)
class Progress:
    """Where training stands; saved with the weights."""

    step: int = 0
    epoch: int = 0
    best: float = -1.0  # of the weights kept so far
    best_epoch: float = -1.0  # of epochs alone: the start is no epoch, and may be hard to beat
    stale_epochs: int = 0
    seconds: float = 0.0


class Loop:
    """Trains a learner on its tasks; `run` leaves the best weights in it."""

    def __init__(
        self,
        learner: Learner,
        tasks: Sequence[TaskData],
        settings: TrainingPart,
        *,
        accelerator: Accelerator,
        tracker: Tracker,
        state_folder: Path,
    ) -> None:
        self.learner = learner
        self.tasks = tasks
        self.settings = settings
        self.tracker = tracker
        self.progress = Progress()
        self._accelerator = accelerator
        self._folder = state_folder
        self._stands_still = False
        self._spent = 0.0  # of `max_minutes`, 0 to 1
        share = settings.accumulation_steps * accelerator.num_processes
        self._steps_per_epoch = math.ceil(len(self._batches(0)) / share)
        self._n_steps = max(1, self._steps_per_epoch * settings.epochs)
        optimizer = build_optimizer(learner, settings)
        # stepped once per optimizer step, whatever the processes
        self._schedule = Schedule(optimizer, settings, n_steps=self._n_steps)
        self._weights = AdaptiveWeights(len(tasks)) if settings.adaptive_weights else None
        self._wrapped: nn.Module
        self._wrapped, self._optimizer = accelerator.prepare(learner, optimizer)
        self._mean = MovingAverage(learner, settings.ema_decay) if settings.ema_decay else None
        self._perturbation = None
        if settings.adversarial_epsilon:
            words = learner.encoder.get_input_embeddings()
            self._perturbation = EmbeddingPerturbation(words, settings.adversarial_epsilon)

    def run(self, *, resume: bool = False) -> Progress:
        """Train until done, until validation stops improving, or until time is up."""
        if resume and self.has_resume_point:
            self._load()
            self.tracker.say(
                f"resumed at epoch {self.progress.epoch}, step {self.progress.step} "
                f"of {self._n_steps}"
            )
        elif self._mean is not None:
            self._mean.start()
        self._spend(self.progress.seconds)
        while self.progress.epoch < self.settings.epochs and not self._is_over():
            self._epoch()
        self._leave_weights()
        return self.progress

    def probe(self) -> float:
        """Start each task of labels from a logistic regression on frozen vectors.

        Attacked copies are left out: vectors that are not tuned tell them from the rest badly, and
        tuning starts worse for it.

        Returns:
            seconds it took, without the validation that follows.
        """
        seconds = self._fit_probes([without_attacks(task.train) for task in self.tasks])
        metric = self._keep_if_best(is_start=True)
        self._tell_probe("probe", metric, seconds)
        return seconds

    def probe_again(self) -> None:
        """Fit the labels once more, to the vectors of the weights as they are at the end."""
        self.learner.new_evaluation()
        seconds = self._fit_probes([task.train for task in self.tasks])
        self._tell_probe("probe again", self.validation_score(), seconds)

    def _fit_probes(self, rows_of_tasks: Sequence[Sequence[Row]]) -> float:
        started = time.monotonic()
        for number, rows in enumerate(rows_of_tasks):
            features = self._outputs(rows, partial(self.learner.features, number))
            objective = self.learner.objectives[number]
            if features and isinstance(objective, LabelObjective):
                vectors = torch.stack(features)
                objective.use_probe(rows, vectors, self.settings.probe_inverse_l2)
        return time.monotonic() - started

    def _tell_probe(self, event: str, metric: float, seconds: float) -> None:
        self.tracker.record(event, **{self.metric_name: metric}, seconds=round(seconds, 2))
        self.tracker.say(f"{event}: validation {self.metric_name} {metric:.4f} ({seconds:.1f} s)")

    @property
    def has_resume_point(self) -> bool:
        """Whether an interrupted run left something to go on from."""
        return (self._folder / RESUME_FILE).is_file()

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes."""
        return bool(self._accelerator.is_main_process)

    def evaluate(
        self, number: int, rows: Sequence[Row], *, n_resamples: int = 1_000
    ) -> dict[str, Any]:
        """Figures of a task on rows."""
        objective = self.learner.objectives[number]
        return objective.measure(rows, self.outputs(number, rows), n_resamples=n_resamples)

    def outputs(self, number: int, rows: Sequence[Row]) -> list[Tensor]:
        """What the model says about each of a task's rows, in their order."""
        return self._fresh(rows, self.learner.objectives[number].outputs)

    def outputs_under(
        self, number: int, wordings: Sequence[str], rows: Sequence[Row]
    ) -> list[Tensor]:
        """`outputs` in each of the wordings of an instruction: [W, ...] for each row."""
        function = partial(self.learner.objectives[number].outputs_under, wordings)
        return self._fresh(rows, function)

    @contextmanager
    def standing_still(self) -> Iterator[None]:
        """While no weight changes, what candidates were read to stays for the next rows."""
        self.learner.new_evaluation()
        self._stands_still = True
        try:
            yield
        finally:
            self._stands_still = False
            self.learner.new_evaluation()

    def _fresh(self, rows: Sequence[Row], function: Read) -> list[Tensor]:
        """Outputs of the weights as they stand; nothing kept before or after."""
        if self._stands_still:
            return self._outputs(rows, function)
        with self.standing_still():
            return self._outputs(rows, function)

    def _outputs(self, rows: Sequence[Row], function: Read) -> list[Tensor]:
        self.learner.eval()
        with torch.inference_mode(), self._accelerator.autocast():
            found = outputs_by_row(rows, EVALUATION_BATCH, function)
        return [output.clone() for output in found]  # inference tensors cannot be trained on

    def _epoch(self) -> None:
        state, settings = self.progress, self.settings
        batches = self._my_batches(state.epoch)
        done = state.step - state.epoch * self._steps_per_epoch  # behind this epoch's start
        group = settings.accumulation_steps
        started, n_rows, losses = time.monotonic(), 0, []
        for start in range(done * group, len(batches), group):
            losses.append(self._step(batches[start : start + group]))
            state.step += 1
            if state.step % RETURN_STEPS == 0:
                return_freed_memory()
            n_rows += sum(len(rows) for _, rows in batches[start : start + group])
            elapsed = time.monotonic() - started
            self.tracker.step(
                state.step,
                self._n_steps,
                words=f"epoch {state.epoch + 1}/{settings.epochs}",
                rows_per_s=n_rows / elapsed,
            )
            if settings.log_steps and state.step % settings.log_steps == 0:
                self._record_step(losses[-1], n_rows / elapsed)
            if settings.checkpoint_steps and state.step % settings.checkpoint_steps == 0:
                state.seconds += elapsed
                started, n_rows = time.monotonic(), 0
                self._save()
            self._spend(state.seconds + time.monotonic() - started)
            if self._spent >= 1:
                self.tracker.say(
                    f"out of time at step {state.step} of {self._n_steps}: "
                    f"{settings.max_minutes:g} minutes (training.max_minutes)"
                )
                break
        state.seconds += time.monotonic() - started
        state.epoch += 1
        if self._weights is not None:
            seen = torch.tensor(self._weights.seen, device=self._accelerator.device)
            self._weights.close_epoch(self._accelerator.reduce(seen, "sum").tolist())
        self._validate(sum(losses) / max(1, len(losses)))
        self._save()

    def _step(self, batches: Sequence[tuple[int, list[Row]]]) -> float:
        self._wrapped.train()
        self.learner.new_step(self.progress.step)
        total = sum(self._backward(task, rows, len(batches)) for task, rows in batches)
        if not math.isfinite(total):
            raise TrainingDiverged(
                f"the loss is {total} at step {self.progress.step + 1}",
                hint="lower learning_rate and head_learning_rate, or lengthen warmup_share; "
                "--resume would meet it again",
            )
        self._accelerator.clip_grad_norm_(self._wrapped.parameters(), self.settings.max_grad_norm)
        self._optimizer.step()
        self._schedule.step(at_least=int(self._spent * self._n_steps))
        self._optimizer.zero_grad()
        if self._mean is not None:
            self._mean.update()
        return total

    def _backward(self, task: int, rows: list[Row], n_batches: int) -> float:
        """Gradients of one batch of a step; its share of the step's loss."""
        weight = 1.0 if self._weights is None else self._weights.weights[task]
        with nullcontext() if self._perturbation is None else self._perturbation.watching():
            loss = self._loss(task, rows)
            self._accelerator.backward(weight * loss / n_batches)
        if self._weights is not None:
            self._weights.add(task, loss.item())
        if self._perturbation is not None:
            with self._perturbation.moved():
                self._accelerator.backward(weight * self._loss(task, rows) / n_batches)
        return loss.item() / n_batches

    def _loss(self, task: int, rows: list[Row]) -> Tensor:
        with self._accelerator.autocast():
            loss: Tensor = self._wrapped(task, rows)
        return loss

    def _record_step(self, loss: float, rows_per_s: float) -> None:
        rates = [float(group["lr"]) for group in self._optimizer.param_groups]
        self.tracker.record(
            "step",
            step=self.progress.step,
            loss=round(loss, 6),
            learning_rate=min(rates),
            head_learning_rate=max(rates),
            rows_per_s=round(rows_per_s, 1),
        )

    def _validate(self, loss: float) -> None:
        state, name = self.progress, self.metric_name
        with nullcontext() if self._mean is None else self._mean.applied():
            metric = self._keep_if_best()
        self._schedule.validated(metric)
        figures: dict[str, Any] = {"epoch": state.epoch, "loss": round(loss, 4), name: metric}
        if self._weights is not None:
            weights = zip(self.tasks, self._weights.weights, strict=True)
            figures["weights"] = {task.name: round(weight, 4) for task, weight in weights}
        self.tracker.record("epoch", **figures, seconds=round(state.seconds, 1))
        self.tracker.say(
            f"epoch {state.epoch}/{self.settings.epochs}: loss {loss:.3f}, "
            f"validation {name} {metric:.4f} ({state.seconds:.0f} s)"
        )

    @property
    def metric_name(self) -> str:
        """The headline that all tasks share, else "score" for the mean of different ones."""
        names = {objective.headline for objective in self.learner.objectives}
        return names.pop() if len(names) == 1 else "score"

    def validation_score(self) -> float:
        """The headline on validation rows; of several tasks the mean, each counting alike."""
        found = []
        for number, task in enumerate(self.tasks):
            figures = self.evaluate(number, task.validation or task.train, n_resamples=0)
            found.append(figures[self.learner.objectives[number].headline])
        return float(sum(found) / len(found))

    def _keep_if_best(self, *, is_start: bool = False) -> float:
        """Measure on validation rows; the best weights so far are what the run will leave."""
        state, metric = self.progress, self.validation_score()
        if metric > state.best:
            state.best = metric
            if self.settings.keep == "best":
                self._write(BEST_FILE, self._plain_state())
        if is_start:
            return metric
        if metric > state.best_epoch:
            state.best_epoch, state.stale_epochs = metric, 0
        else:
            state.stale_epochs += 1
        return metric

    def _is_over(self) -> bool:
        if self.progress.stale_epochs >= self.settings.patience:
            n_stale = self.progress.stale_epochs
            self.tracker.say(f"stopped early: {n_stale} epochs without gain (training.patience)")
            return True
        return self._spent >= 1

    def _spend(self, seconds: float) -> None:
        """So much of the time is gone: the learning rate falls with it, and all stop together."""
        if limit := 60 * self.settings.max_minutes:
            self._spent = min(1.0, float(broadcast_object_list([seconds / limit])[0]))

    def _my_batches(self, epoch: int) -> list[tuple[int, list[Row]]]:
        """This process's share; every process has equally many, so that none waits forever."""
        batches = self._batches(epoch)
        n, rank = self._accelerator.num_processes, self._accelerator.process_index
        batches += batches[: -len(batches) % n]
        return batches[rank::n]

    def _batches(self, epoch: int) -> list[tuple[int, list[Row]]]:
        settings = self.settings
        share = settings.accumulation_steps * self._accelerator.num_processes
        return epoch_batches(
            self.tasks,
            settings.batch_size,
            seed=settings.seed,
            epoch=epoch,
            mixture=settings.mixture,
            span_batch_size=settings.span_batch_size,
            max_tokens=settings.batch_tokens,
            limit=settings.steps_per_epoch * share,
        )

    def _plain_state(self) -> dict[str, Tensor]:
        return {k: v.detach().cpu().clone() for k, v in self.learner.state_dict().items()}

    def _write(self, name: str, content: Any) -> None:
        if self._accelerator.is_main_process:
            write_state(self._folder / name, content)

    def _save(self) -> None:
        """Everything that decides the next steps, so that a killed run ends as if it was not."""
        state = self.progress
        content = {
            "learner": self._plain_state(),
            "optimizer": self._optimizer.state_dict(),
            "schedule": self._schedule.state_dict(),
            "mean": self._mean and self._mean.state(),
            "processes": gather_object([self._own_state()]),
            "progress": {name: getattr(state, name) for name in Progress.__slots__},
        }
        self._write(RESUME_FILE, content)
        self.learner.new_evaluation()  # a resumed run starts without kept vectors; so do we

    def _load(self) -> None:
        content = torch.load(self._folder / RESUME_FILE, map_location="cpu", weights_only=True)
        self.learner.load_state_dict(content["learner"])
        self._optimizer.load_state_dict(content["optimizer"])
        self._schedule.load_state_dict(content["schedule"])
        states, n = content["processes"], self._accelerator.num_processes
        if len(states) != n:
            raise ConfigError(
                f"this run was begun with {len(states)} processes, and is resumed with {n}",
                hint="start as many, or name another --out",
            )
        self._set_own_state(states[self._accelerator.process_index])
        self.progress = Progress(**content["progress"])
        if self._mean is not None:
            self._mean.set_state(content["mean"])

    def _own_state(self) -> dict[str, Any]:
        """What differs by process: the generators it draws from, the losses it saw."""
        return generators(self._accelerator.device) | {
            "learner": self.learner.random_state(),
            "weights": self._weights and self._weights.state(),
        }

    def _set_own_state(self, state: dict[str, Any]) -> None:
        set_generators(state, self._accelerator.device)
        self.learner.set_random_state(state["learner"])
        if self._weights is not None:
            self._weights.set_state(state["weights"])

    def _leave_weights(self) -> None:
        """The best epoch's weights, or the last one's, as they were validated."""
        self._accelerator.wait_for_everyone()
        best = self._folder / BEST_FILE
        if self.settings.keep == "best" and best.is_file():
            self.learner.load_state_dict(torch.load(best, map_location="cpu", weights_only=True))
        elif self._mean is not None and self.progress.step:
            self._mean.apply()
        self.learner.eval()
