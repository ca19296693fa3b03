"""`prune_run`: a smaller model from a run's, recovered by distillation from it.

RUN and the settings give RUN2, a run folder like any other (`instructrec export` takes it), with

RUN2/pruning.json   what was kept, chosen once: a resumed run keeps the same
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from instructrec_deploy.core.bundle import TASKS_FILE
from instructrec_deploy.core.errors import BundleError, ConfigError, FileMissing
from instructrec_deploy.models.checkpoint import (
    Checkpoint,
    load_checkpoint,
    transformers_part,
)
from instructrec_deploy.models.instruction_encoder import InstructionEncoder
from instructrec_deploy.models.shrink import keep_heads, keep_layers, keep_neurons, parts_of
from instructrec_deploy.models.span_reader import SpanReader
from instructrec_training.continual import read_book
from instructrec_training.data import TaskData, load_task_data
from instructrec_training.importance import (
    best_units,
    choose_layers,
    draw_batches,
    mean_loss,
    measure_units,
)
from instructrec_training.learners import EncoderLearner, HeadLearner, Learner
from instructrec_training.recipe import Recipe, has_single_labels, with_values
from instructrec_training.refit import refit, rows_to_read, token_batches
from instructrec_training.replay import write_json
from instructrec_training.run import (
    CHECKPOINT_FOLDER,
    EVALUATION_FILE,
    RECIPE_FILE,
    RunReport,
    train,
)

PRUNING_FILE = "pruning.json"
WIDTH_STEP = 32  # feed-forward widths are multiples of it: kernels work in blocks
LAYER_ROWS = 128  # of a trial without a layer; there are many trials
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Pruning:
    """What stays, and how it is recovered.

    Args:
        ffn: share of the feed-forward neurons of each layer, in (0, 1].
        heads: share of the attention heads of each layer, in (0, 1].
        layers: how many layers; 0: all.
        rows: training rows that importance is measured on.
        epochs: of the distillation; 0: none. None: as many as the run was tuned.
        learning_rate: of the distillation; 0: the run's.
        max_minutes: of the distillation; 0: no limit.
        refit: fit the weights behind what is left by least squares before the distillation.
    """

    ffn: float = 1.0
    heads: float = 1.0
    layers: int = 0
    rows: int = 512
    epochs: int | None = None
    learning_rate: float = 0.0
    max_minutes: float = 0.0
    refit: bool = True

    def check(self) -> None:
        """Find what is wrong before anything is read.

        Raises:
            ConfigError: a number is out of range, or nothing would be pruned.
        """
        for name in ("ffn", "heads"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ConfigError(
                    f"{name} is {getattr(self, name):g}", hint="a share that stays: above 0, to 1"
                )
        if self.ffn == self.heads == 1.0 and not self.layers:
            raise ConfigError(
                "nothing to prune", hint="say what stays: --ffn 0.5, --heads 0.75, --layers 4"
            )


@dataclass(frozen=True, slots=True)
class Pruned:
    """What became of a run."""

    report: RunReport
    facts: dict[str, Any]  # as in evaluation.json


def prune_run(
    run: Path,
    pruning: Pruning,
    out: Path,
    *,
    data_root: Path,
    resume: bool = False,
    is_quiet: bool = False,
    say: Say = lambda _: None,
) -> Pruned:
    """Prune a run's model and distil the run's own into what is left.

    Args:
        run: a finished run folder of `train`.
        pruning: how much stays.
        out: the new run folder.
        data_root, resume, is_quiet: as for `train`.
        say: told what is being done.

    Raises:
        ConfigError: the settings do not fit the model, or `out` holds something else.
        FileMissing: no such run, or not its data.
    """
    pruning.check()
    recipe = recovery_recipe(run, pruning)
    start = _Start(run, pruning, say)
    report = train(
        recipe, out, data_root=data_root, resume=resume, is_quiet=is_quiet, prepare=start.prepare
    )
    before = _evaluation(run)
    facts = {
        **start.facts,
        "from_run": run.resolve().name,
        "unpruned": {"n_parameters": start.n_before, "after": before.get("after", {})},
        "n_parameters": start.n_after,
    }
    evaluation = _evaluation(out) | {"pruning": facts}
    evaluation["base"] = before.get("base", recipe.model.base)
    write_json(out / EVALUATION_FILE, evaluation)
    return Pruned(report, facts)


def recovery_recipe(run: Path, pruning: Pruning) -> Recipe:
    """The run's recipe, its labels in their order, taught by the run itself.

    Raises:
        FileMissing: no finished run there.
        ConfigError: its recipe is damaged.
    """
    file = run / RECIPE_FILE
    if not file.is_file() or not (run / TASKS_FILE).is_file():
        raise FileMissing(
            f"{run} is no finished run (no {RECIPE_FILE} or {TASKS_FILE})",
            hint="name a run folder of `instructrec train`",
        )
    try:
        recipe = Recipe.model_validate_json(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file}: not a recipe of this version", hint="train again") from error
    book = read_book(run)
    tasks = {
        name: spec.model_copy(update={"labels": book.tasks[name].labels})
        for name, spec in recipe.tasks.items()
        if name in book.tasks
    }
    recipe = recipe.model_copy(update={"tasks": tasks})
    is_tuned = recipe.training.epochs if pruning.epochs is None else pruning.epochs
    has_teacher = is_tuned and any(has_single_labels(spec) for spec in tasks.values())
    off: dict[str, Any] = {  # each of them needs the unpruned shape, or would undo the tuning
        "probe": False,
        "probe_again": False,
        "probe_inverse_l2": 1.0,
        "lora_rank": 0,
        "lora_alpha": 0,
        "lora_dropout": 0.0,
        "lora_targets": (),
        "average_with_base": 0.0,
        "freeze_layers": 0,
        "max_minutes": pruning.max_minutes,
        "patience": max(1, is_tuned),  # the gain comes with the small steps of the end
        "teacher": str((run / CHECKPOINT_FOLDER).resolve()) if has_teacher else "",
    }
    if pruning.epochs is not None:
        off["epochs"] = pruning.epochs
    if pruning.learning_rate:
        off["learning_rate"] = pruning.learning_rate
    return with_values(recipe, {f"training.{key}": value for key, value in off.items()})


class _Start:
    """`prepare` of the recovery: the pruned model and its rows."""

    def __init__(self, run: Path, pruning: Pruning, say: Say) -> None:
        self._run = run
        self._pruning = pruning
        self._say = say
        self.facts: dict[str, Any] = {}
        self.n_before = self.n_after = 0

    def prepare(self, recipe: Recipe, out: Path, root: Path) -> tuple[Checkpoint, list[TaskData]]:
        checkpoint = load_checkpoint(self._run / CHECKPOINT_FOLDER)
        self.n_before = checkpoint.n_parameters
        tasks = load_task_data(recipe, root, checkpoint.open_tokenizer())
        settings = asdict(self._pruning)
        file = out / PRUNING_FILE
        if file.is_file():
            kept = _read_kept(file, settings)
        else:
            kept = choose(checkpoint, tasks, recipe, self._pruning, say=self._say)
            write_json(file, {"settings": settings, "kept": kept})
        checkpoint = load_checkpoint(self._run / CHECKPOINT_FOLDER)  # as it was: trials touch it
        checkpoint = cut(checkpoint, kept)
        if self._pruning.refit:
            self._refit(checkpoint, tasks, kept["layers"])
        self.n_after = checkpoint.n_parameters
        self.facts = {"settings": settings, **_sizes(kept)}
        self._say(f"{self.n_before / 1e6:.1f} -> {self.n_after / 1e6:.1f} million weights")
        return checkpoint, tasks

    def _refit(self, pruned: Checkpoint, tasks: Sequence[TaskData], layers: list[int]) -> None:
        self._say("fitting what is left ...")
        section, whole = pruned.section, load_checkpoint(self._run / CHECKPOINT_FOLDER)
        weight = section.instruction_weight if section.kind == "instruction-encoder" else None
        tokenizer = whole.open_tokenizer()
        rows = rows_to_read(tasks, self._pruning.rows, tokenizer, weight)
        batches = token_batches(rows, section.pad_id)
        refit(whole.model.eval(), pruned.model.eval(), layers, batches)


def choose(
    checkpoint: Checkpoint,
    tasks: Sequence[TaskData],
    recipe: Recipe,
    pruning: Pruning,
    *,
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """What stays, as plain data; the checkpoint's model is pruned on the way.

    Returns:
        `layers`: numbers of the layers. `heads`, `neurons`: for each layer that stays a list of
        indices, behind the neurons' those of the span reader's layers; empty: all stay.
    """
    learner = make_learner(checkpoint, tasks, recipe).eval()
    base, reader = _encoder(checkpoint), _reader(checkpoint)
    n_layers, n_kept = len(parts_of(base)), pruning.layers or len(parts_of(base))
    n_protected = reader.n_layers if reader is not None else 0
    if not max(1, n_protected) <= n_kept <= n_layers:
        raise ConfigError(
            f"layers = {n_kept}: the model has {n_layers}"
            + (f", the span reader needs the upper {n_protected}" if n_protected else ""),
            hint=f"{max(1, n_protected)} to {n_layers}",
        )
    batches = draw_batches(tasks, pruning.rows, seed=recipe.training.seed)
    say(f"loss of the whole model: {mean_loss(learner, batches):.4f}")
    few = draw_batches(tasks, min(LAYER_ROWS, pruning.rows), seed=recipe.training.seed)
    layers = choose_layers(learner, base, few, n_kept, n_protected=n_protected, say=say)
    keep_layers(base, layers)
    kept: dict[str, Any] = {"layers": layers, "heads": [], "neurons": []}
    if pruning.heads == pruning.ffn == 1.0:
        return kept
    say("measuring heads and neurons ...")
    found = measure_units(learner, base, reader, batches)
    if pruning.heads < 1.0:
        n_heads = max(1, round(pruning.heads * len(found.heads[0])))
        kept["heads"] = [best_units(one, n_heads).tolist() for one in found.heads]
    if pruning.ffn < 1.0:
        width = len(found.neurons[0])
        step = min(WIDTH_STEP, width)
        n_neurons = max(step, round(pruning.ffn * width / step) * step)
        kept["neurons"] = [best_units(one, n_neurons).tolist() for one in found.neurons]
    return kept


def cut(checkpoint: Checkpoint, kept: dict[str, Any]) -> Checkpoint:
    """A checkpoint with what stays; its model is changed in place.

    Raises:
        ConfigError: the model cannot be pruned so.
    """
    base, reader = _encoder(checkpoint), _reader(checkpoint)
    keep_layers(base, kept["layers"])
    section = checkpoint.section
    if kept["heads"]:
        keep_heads(base, kept["heads"])
        section = section.model_copy(update={"kept_heads": len(kept["heads"][0])})
    if kept["neurons"]:
        keep_neurons(base, [torch.tensor(one) for one in kept["neurons"]], reader)
    return replace(checkpoint, section=section)


def make_learner(checkpoint: Checkpoint, tasks: Sequence[TaskData], recipe: Recipe) -> Learner:
    """The model as a module with its tasks' losses."""
    if checkpoint.section.kind == "instruction-encoder":
        tokenizer = checkpoint.open_tokenizer()
        return EncoderLearner(checkpoint, tasks, tokenizer, recipe.training)
    return HeadLearner(checkpoint, tasks[0], recipe.training)


def _encoder(checkpoint: Checkpoint) -> Any:
    """The bare encoder of transformers."""
    return transformers_part(checkpoint.model).base_model


def _reader(checkpoint: Checkpoint) -> SpanReader | None:
    model = checkpoint.model
    return model.reader if isinstance(model, InstructionEncoder) else None


def _sizes(kept: dict[str, Any]) -> dict[str, Any]:
    """What stays in numbers."""
    found: dict[str, Any] = {"layers": kept["layers"]}
    if kept["heads"]:
        found["n_heads"] = len(kept["heads"][0])
    if kept["neurons"]:
        found["n_neurons"] = len(kept["neurons"][0])
    return found


def _read_kept(file: Path, settings: dict[str, Any]) -> dict[str, Any]:
    try:
        known = json.loads(file.read_text(encoding="utf-8"))
        kept: dict[str, Any] = known["kept"]
    except (ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{file} is damaged", hint="name another --out folder") from error
    if known["settings"] != settings:
        raise ConfigError(
            f"{file.parent} was pruned with other settings",
            hint="resume with the same, or name another --out folder",
        )
    return kept


def _evaluation(run: Path) -> dict[str, Any]:
    file = run / EVALUATION_FILE
    found: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return found
