"""One training run from recipe to run folder.

RUN/checkpoint/       the best weights (`instructrec export` reads this)
RUN/tasks.toml        tasks with labels, wordings and the learned temperature
RUN/evaluation.json   before and after, per task, with 95 % intervals
RUN/samples.jsonl     some training texts, from which export makes golden pairs
RUN/recipe.json       the recipe as it was resolved
RUN/log.jsonl         one JSON object per event
RUN/tensorboard/      the same for TensorBoard, where the recipe wants it
RUN/state/            resume point
"""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import tomli_w
import torch
from accelerate import Accelerator

from instructrec_deploy.core.errors import ConfigError, InstructRecError
from instructrec_deploy.core.request import plain_request
from instructrec_deploy.core.task import SHAPES, Shape
from instructrec_deploy.evaluation.figures import HEADLINES
from instructrec_deploy.evaluation.requests import content_of
from instructrec_deploy.models.checkpoint import (
    Checkpoint,
    build_checkpoint,
    read_base_tokenizer,
    save_checkpoint,
)
from instructrec_training.data import TaskData, load_task_data
from instructrec_training.devices import start_accelerator, suit_attention
from instructrec_training.distil import add_teacher
from instructrec_training.finish import Finish
from instructrec_training.freezing import freeze
from instructrec_training.learners import EncoderLearner, HeadLearner, Learner
from instructrec_training.loop import Loop
from instructrec_training.objectives.labelled import LabelObjective
from instructrec_training.objectives.rank import RankObjective
from instructrec_training.recipe import Recipe
from instructrec_training.robustness import wording_report
from instructrec_training.state import forget_state, set_seed
from instructrec_training.tracking import Tracker
from instructrec_training.warm_start import is_checkpoint, start_from

CHECKPOINT_FOLDER = "checkpoint"
N_CENTRING = 256  # training rows whose untuned scores say where a task starts
STATE_FOLDER = "state"
RECIPE_FILE = "recipe.json"
EVALUATION_FILE = "evaluation.json"
Prepare = Callable[[Recipe, Path, Path], tuple[Checkpoint, list[TaskData]]]  # run folder, data root


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run reached. Metrics are on the test rows (validation rows where there are none)."""

    folder: Path
    before: dict[str, Any]
    after: dict[str, Any]
    seconds: float  # of the whole run
    training_s: float  # of the steps alone
    device: str
    validation: float = 0.0  # the headline on validation rows, mean over tasks
    base_share: float = 0.0  # of the base in the encoder's weights
    probe_s: float | None = None  # reading the frozen vectors and fitting; None: it was not done
    wordings: dict[str, Any] = field(default_factory=dict)  # by task; see `robustness`


def train(
    recipe: Recipe,
    out: Path,
    *,
    data_root: Path,
    resume: bool = False,
    is_quiet: bool = False,
    prepare: Prepare | None = None,
) -> RunReport:
    """Run a recipe.

    Args:
        recipe: what to do.
        out: the run folder; must be new or empty unless `resume`.
        data_root: where relative data paths start.
        resume: go on from the folder's resume point, with the same recipe.
        is_quiet: no words on standard error.
        prepare: another way to the model it starts from and to its rows (`continual`).

    Raises:
        ConfigError: the folder holds another run, or the recipe does not fit its data.
    """
    started = time.monotonic()
    set_seed(recipe.training.seed)
    accelerator = start_accelerator(recipe.training.precision)
    is_new = _claim_folder(out, recipe, resume=resume, is_main=accelerator.is_main_process)
    accelerator.wait_for_everyone()
    tracker = Tracker(
        out / "log.jsonl",
        is_main=accelerator.is_main_process,
        is_quiet=is_quiet,
        tensorboard=out / "tensorboard" if recipe.training.tensorboard else None,
    )
    with tracker:
        try:
            with accelerator.main_process_first():  # it writes tokenizer.json, may fetch a preset
                checkpoint, tasks = (prepare or _prepare)(recipe, out, data_root)
        except InstructRecError:
            if is_new:  # the corrected command is to find the name free
                shutil.rmtree(out, ignore_errors=True)
            raise
        _announce(tracker, recipe, checkpoint, tasks, accelerator)
        freeze(checkpoint.model, recipe.training)
        suit_attention(checkpoint.model, accelerator)
        learner = _learner(recipe, checkpoint, tasks)
        finish = Finish(learner, recipe.training)
        add_teacher(learner, tasks, recipe.training, tracker, device=accelerator.device)
        loop = Loop(
            learner,
            tasks,
            recipe.training,
            accelerator=accelerator,
            tracker=tracker,
            state_folder=out / STATE_FOLDER,
        )
        with loop.standing_still():
            before = _before(loop, tasks, out, tracker, resume=resume)
            _start(loop, tasks)
        probe_s = None
        if recipe.training.probe and not loop.has_resume_point:
            tracker.say("logistic regression on frozen vectors ...")
            probe_s = round(loop.probe(), 2)
        progress = loop.run(resume=resume)
        base_share = finish(loop)
        with loop.standing_still():
            calibrated, after, validation = _after(loop, tasks, tracker)
            wordings = _by_wording(loop, tasks)
        report = RunReport(
            out,
            before,
            after,
            time.monotonic() - started,
            progress.seconds,
            str(accelerator.device),
            validation,
            base_share,
            probe_s,
            wordings,
        )
        if accelerator.is_main_process:
            _write_run(recipe, checkpoint, learner, tasks, calibrated, report)
        accelerator.wait_for_everyone()
    return report


def _claim_folder(out: Path, recipe: Recipe, *, resume: bool, is_main: bool) -> bool:
    """Whether this process has made the run's folder, or begun in an empty one."""
    if not is_main:
        return False
    content = recipe.model_dump_json(indent=2)
    known = out / RECIPE_FILE
    if known.is_file():
        if not resume:
            raise ConfigError(
                f"{out} holds a run already",
                hint="pass --resume to go on with it, or name another folder",
            )
        if known.read_text(encoding="utf-8").strip() != content.strip():
            raise ConfigError(
                f"{out} was begun with another recipe",
                hint="resume with the recipe it was begun with, or name another folder",
            )
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is not empty and holds no run", hint="name another folder")
    else:
        out.mkdir(parents=True, exist_ok=True)
        forget_state(out / STATE_FOLDER)
        known.write_text(content + "\n", encoding="utf-8")
        return True
    return False


def _prepare(recipe: Recipe, out: Path, root: Path) -> tuple[Checkpoint, list[TaskData]]:
    """Labels come from the data, the head's size from the labels, so the tokenizer goes first."""
    part = recipe.model
    shared: dict[str, Any] = {
        "work": out / CHECKPOINT_FOLDER,
        "max_tokens": part.max_tokens,
        "use_fusion": part.use_fusion,
        "fused_kinds": part.fused_kinds,
        "reader_layers": part.reader_layers if _finds_spans(recipe) else 0,
        "joint_questions": part.joint_questions,
        "dropout": part.dropout,
        "text_prefix": part.text_prefix,
        "instruction_weight": part.instruction_weight,
    }
    if is_checkpoint(part.base):
        checkpoint = start_from(part, finds_spans=_finds_spans(recipe))
        return checkpoint, load_task_data(recipe, root, checkpoint.open_tokenizer())
    if part.kind == "instruction-encoder":
        checkpoint = build_checkpoint(part.base, kind=part.kind, **shared)
        return checkpoint, load_task_data(recipe, root, checkpoint.open_tokenizer())
    names = ("work", "max_tokens", "text_prefix")
    own = {name: shared[name] for name in names}
    tokenizer = read_base_tokenizer(part.base, kind=part.kind, **own)
    tasks = load_task_data(recipe, root, tokenizer)
    labels, pooling = tasks[0].spec.labels, part.pooling
    checkpoint = build_checkpoint(
        part.base, kind=part.kind, labels=labels, pooling=pooling, **shared
    )
    return checkpoint, tasks


def _finds_spans(recipe: Recipe) -> bool:
    return any(SHAPES[spec.kind] is Shape.EXTRACT for spec in recipe.tasks.values())


def _learner(recipe: Recipe, checkpoint: Checkpoint, tasks: Sequence[TaskData]) -> Learner:
    if recipe.model.kind != "instruction-encoder":
        return HeadLearner(checkpoint, tasks[0], recipe.training)
    return EncoderLearner(checkpoint, tasks, checkpoint.open_tokenizer(), recipe.training)


def _announce(
    tracker: Tracker,
    recipe: Recipe,
    checkpoint: Checkpoint,
    tasks: Sequence[TaskData],
    accelerator: Accelerator,
) -> None:
    rows = "\n".join(
        f"{t.name}: {len(t.spec.labels)} labels, {len(t.train)} training, "
        f"{len(t.validation)} validation, {len(t.test)} test rows"
        for t in tasks
    )
    threads = f", {torch.get_num_threads()} threads" if accelerator.device.type == "cpu" else ""
    tracker.say(
        f"{recipe.name}: {recipe.model.kind} from {recipe.model.base} "
        f"({checkpoint.n_parameters / 1e6:.1f} M weights) on {accelerator.device}{threads}\n{rows}"
    )
    for task in tasks:
        for note in task.notes:
            tracker.say(f"warning: {task.name}: {note}")


def _before(
    loop: Loop, tasks: Sequence[TaskData], out: Path, tracker: Tracker, *, resume: bool
) -> dict[str, Any]:
    """Figures of the untuned model; a resumed run keeps those it began with."""
    file = out / STATE_FOLDER / "before.json"
    if resume and file.is_file():
        kept: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return kept
    before = {}
    for number, task in enumerate(tasks):
        before[task.name] = loop.evaluate(number, task.held_out)
        tracker.say(f"before: {task.name} {_figures(before[task.name])}")
    if loop.is_main:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(before), encoding="utf-8")
    return before


def _start(loop: Loop, tasks: Sequence[TaskData]) -> None:
    """Tasks of any label, and priors, start where untuned scores stand; resumed runs, too."""
    for number, task in enumerate(tasks):
        objective, rows = loop.learner.objectives[number], task.train[:N_CENTRING]
        if task.spec.decision == "any" and isinstance(objective, LabelObjective):
            objective.centre(loop.outputs(number, rows))
        if isinstance(objective, RankObjective):
            objective.start(rows, loop.outputs(number, rows))


def _after(
    loop: Loop, tasks: Sequence[TaskData], tracker: Tracker
) -> tuple[dict[str, dict[str, Any]], dict[str, Any], float]:
    """What validation rows decide for each task's entry; the figures on held-out rows.

    And the headline on validation rows as they were answered uncalibrated, the mean of all tasks.
    """
    calibrated, after, validation = {}, {}, []
    for number, task in enumerate(tasks):
        rows = task.validation or task.train
        objective = loop.learner.objectives[number]
        outputs = loop.outputs(number, rows)
        validation.append(objective.measure(rows, outputs, n_resamples=0)[objective.headline])
        calibrated[task.name] = objective.calibrate(rows, outputs)
        after[task.name] = loop.evaluate(number, task.held_out)
        tracker.say(f"after:  {task.name} {_figures(after[task.name])}")
        if after[task.name].get(objective.headline) == 0:
            tracker.say(
                f"warning: {task.name} stands at 0: nothing of it was learned; more epochs, more "
                "rows, or (entities, questions) a smaller training.span_batch_size"
            )
    return calibrated, after, float(sum(validation) / len(validation))


def _by_wording(loop: Loop, tasks: Sequence[TaskData]) -> dict[str, Any]:
    """How much the words of the instruction matter; a model with fixed labels reads none."""
    if not isinstance(loop.learner, EncoderLearner):
        return {}
    return {
        task.name: wording_report(
            task.spec, loop.learner.objectives[n], task.held_out, partial(loop.outputs_under, n)
        )
        for n, task in enumerate(tasks)
    }


def _figures(report: dict[str, Any]) -> str:
    """The headline figures in words."""
    parts: list[str] = []
    for key, words in HEADLINES.items():
        if key in report:
            low, high = report[f"{key}_interval"]
            parts.append(f"{words} {report[key]:.4f}" + f" [{low:.4f}, {high:.4f}]" * (not parts))
    return f"{', '.join(parts)} (n = {report['n']})"


def _write_run(
    recipe: Recipe,
    checkpoint: Checkpoint,
    learner: Learner,
    tasks: Sequence[TaskData],
    calibrated: dict[str, dict[str, Any]],
    report: RunReport,
) -> None:
    out = report.folder
    vectors = {}
    if isinstance(learner, EncoderLearner):
        vectors = {
            tasks[int(number)].name: vector.detach().cpu()
            for number, vector in learner.label_vectors.items()
        }
    save_checkpoint(checkpoint, out / CHECKPOINT_FOLDER, label_vectors=vectors)
    specs = {task.name: task.spec.model_copy(update=calibrated[task.name]) for task in tasks}
    book = {
        "default_task": recipe.default_task or tasks[0].name,
        "tasks": {name: spec.model_dump(mode="json") for name, spec in specs.items()},
    }
    (out / "tasks.toml").write_text(tomli_w.dumps(book), encoding="utf-8")
    evaluation = {
        "recipe": recipe.name,
        "base": recipe.model.base,
        "kind": recipe.model.kind,
        "seed": recipe.training.seed,
        "device": report.device,
        "threads": torch.get_num_threads(),
        "seconds": round(report.seconds, 1),
        "training_s": round(report.training_s, 1),
        "validation": round(report.validation, 6),
        "average_with_base": report.base_share,
        "probe_s": report.probe_s,
        "rows": {
            t.name: {"train": len(t.train), "validation": len(t.validation), "test": len(t.test)}
            for t in tasks
        },
        "split": {t.name: "test" if t.test else "validation" for t in tasks},
        "before": report.before,
        "after": report.after,
        "wordings": report.wordings,
    }
    (out / EVALUATION_FILE).write_text(
        json.dumps(evaluation, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    _write_samples(recipe, tasks, out / "samples.jsonl")


def _write_samples(recipe: Recipe, tasks: Sequence[TaskData], file: Path) -> None:
    rng = random.Random(recipe.training.seed)
    lines = []
    for task in tasks:
        rows = task.validation or task.train
        for row in rng.sample(rows, min(recipe.training.samples, len(rows))):
            own = plain_request(content_of(row.example)) if row.example else {"text": row.text}
            sample = {**own, "task": task.name}
            if row.words:
                sample["question"] = row.words[0]
            lines.append(json.dumps(sample, ensure_ascii=False))
    part = file.with_suffix(".part")
    part.write_text("\n".join(lines) + "\n", encoding="utf-8")
    part.replace(file)
