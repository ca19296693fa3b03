"""Continual tuning: corrections and replayed rows, from the last run's weights.

RUN, STORE and the recipe give NEWRUN, a run folder like any other, and beside it

NEWRUN/promotion.json   may the new model take the old one's place? figures and reason
NEWRUN/feedback/        the corrections that were used, by task: a resumed run takes the same ones
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from accelerate import PartialState

from instructrec_deploy.core.bundle import TASKS_FILE, read_text
from instructrec_deploy.core.errors import ConfigError, FileMissing, PromotionRefused
from instructrec_deploy.core.manifest import TaskBook, parse_toml
from instructrec_deploy.core.task import SHAPES, Shape, TaskKind
from instructrec_deploy.export.promotion import PROMOTION_FILE, check_promoted
from instructrec_deploy.export.samples import SAMPLES_FILE
from instructrec_deploy.models.checkpoint import Checkpoint, load_checkpoint
from instructrec_deploy.runtime.feedback_store import FeedbackStore
from instructrec_training.data import TaskData, load_task_data
from instructrec_training.promotion import Promotion, decide
from instructrec_training.recipe import Recipe
from instructrec_training.replay import Mixed, mix_feedback, write_json
from instructrec_training.run import CHECKPOINT_FOLDER, EVALUATION_FILE, RunReport, train

FEEDBACK_FOLDER = "feedback"
UNDECIDED = {"promoted": False, "reason": "its tuning has not come to a decision"}


@dataclass(frozen=True, slots=True)
class Retuning:
    """What is retuned from what, and how.

    Args:
        run: the run whose weights it starts from.
        store: the corrections.
        replay_share: in [0, 1): at least this share of an epoch's rows are replayed old ones.
        max_loss: points that an old test may lose.
    """

    run: Path
    store: Path
    replay_share: float = 0.5
    max_loss: float = 0.5

    def check(self) -> None:
        """Find what is wrong before anything is written.

        Raises:
            ConfigError: a number out of range, or the run was refused itself.
            FileMissing: no such run or store.
        """
        if not 0.0 <= self.replay_share < 1.0:
            raise ConfigError(
                f"--replay-share is {self.replay_share:g}", hint="0 or more, and below 1"
            )
        if not 0.0 <= self.max_loss <= 100.0:
            raise ConfigError(f"--max-loss is {self.max_loss:g}", hint="points: 0 to 100")
        if not (self.run / TASKS_FILE).is_file():
            raise FileMissing(
                f"{self.run} is no run (no {TASKS_FILE})",
                hint="name a run folder of `instructrec train`",
            )
        try:
            check_promoted(self.run)
        except PromotionRefused as error:
            raise ConfigError(
                f"nothing is tuned from a refused run: {error.message}",
                hint="go on from the run before it",
            ) from error
        FeedbackStore.open(self.store).close()


@dataclass(frozen=True, slots=True)
class Retuned:
    """A new run and whether it was promoted."""

    report: RunReport
    promotion: Promotion
    facts: Mapping[str, Any]  # content of promotion.json


def retune(
    recipe: Recipe,
    retuning: Retuning,
    out: Path,
    *,
    data_root: Path,
    resume: bool = False,
    is_quiet: bool = False,
) -> Retuned:
    """Tune the last run's model on corrections and old rows, then decide on its promotion.

    The new run is complete, and its promotion.json written, also where it is refused; see
    `refuse_lost`.

    Args:
        recipe: of the last run; its training settings and data are used again.
        retuning: what from, and how.
        out: the new run folder.
        data_root, resume, is_quiet: as for `train`.

    Raises:
        ConfigError: the recipe does not fit the run, or no correction can be used.
        FileMissing, FeedbackUnusable, BundleError: run or store are not there, or damaged.
    """
    retuning.check()
    book = read_book(retuning.run)
    plan = continue_recipe(recipe, retuning.run, book)
    start = _Start(retuning, data_root)
    report = train(
        plan, out, data_root=data_root, resume=resume, is_quiet=is_quiet, prepare=start.prepare
    )
    mixed = start.mixed
    promotion = decide(
        retuning.run, out, mixed.tests, mixed.feedback_tests, max_loss=retuning.max_loss
    )
    facts = {
        **promotion.to_dict(),
        "from_run": retuning.run.resolve().name,
        "feedback": mixed.facts,
    }
    if PartialState().is_main_process:
        samples = retuning.run / SAMPLES_FILE
        if samples.is_file():  # golden pairs travel with the bundle; corrections should not
            shutil.copyfile(samples, out / SAMPLES_FILE)
        evaluation = json.loads((out / EVALUATION_FILE).read_text(encoding="utf-8"))
        evaluation |= {"base": start.base, "promotion": facts}
        write_json(out / EVALUATION_FILE, evaluation)
        write_json(out / PROMOTION_FILE, facts)
    return Retuned(report, promotion, facts)


def refuse_lost(retuned: Retuned) -> None:
    """Raise where the new model lost an old test.

    Raises:
        PromotionRefused: it did.
    """
    if retuned.promotion.lost:
        out = retuned.report.folder
        raise PromotionRefused(
            f"the new model is not promoted: {retuned.promotion.reason}",
            hint=f"figures: {out / PROMOTION_FILE}. Look through the corrections "
            "(`instructrec feedback list --with-text`), replay more (--replay-share), or allow a "
            "larger --max-loss; `instructrec export --force` takes the run as it is",
        )


def read_book(run: Path) -> TaskBook:
    """The tasks of a run."""
    path = run / TASKS_FILE
    return parse_toml(TaskBook, read_text(path), where=str(path), error=ConfigError)


def continue_recipe(recipe: Recipe, run: Path, book: TaskBook) -> Recipe:
    """The recipe with the run's checkpoint for its base, and the run's labels in their order.

    Raises:
        ConfigError: the recipe has other tasks than the run, or one without single labels.
    """
    used = {part.task for part in recipe.data}
    if used != set(book.tasks):
        differ = ", ".join(sorted(used ^ set(book.tasks)))
        raise ConfigError(
            f"recipe and run have other tasks: {differ}", hint="use the recipe the run was made by"
        )
    for name in sorted(used):
        spec = recipe.tasks[name]
        is_classified = SHAPES[spec.kind] is Shape.CLASSIFY and spec.decision == "one"
        if not is_classified or spec.none_label or spec.kind is TaskKind.RANKING:
            raise ConfigError(
                f"task {name!r} has other answers than one of its labels: it cannot be retuned yet",
                hint="retune a recipe whose tasks have one label each",
            )
    tasks = {
        name: spec.model_copy(update={"labels": book.tasks[name].labels})
        for name, spec in recipe.tasks.items()
        if name in used
    }
    base = str((run / CHECKPOINT_FOLDER).resolve())
    model = recipe.model.model_copy(update={"base": base})
    # No regression: it would put aside what the run has learned about its labels.
    training = recipe.training.model_copy(update={"probe": False, "probe_again": False})
    return recipe.model_copy(update={"model": model, "tasks": tasks, "training": training})


class _Start:
    """`prepare` of a run that goes on from another; remembers what its rows were."""

    def __init__(self, retuning: Retuning, data_root: Path) -> None:
        self._retuning = retuning
        self._data_root = data_root
        self._mixed: Mixed | None = None
        self.base = ""  # what the first run of all was tuned from

    @property
    def mixed(self) -> Mixed:
        """Known once it has been prepared."""
        assert self._mixed is not None
        return self._mixed

    def prepare(self, recipe: Recipe, out: Path, root: Path) -> tuple[Checkpoint, list[TaskData]]:
        """The last run's checkpoint, and its rows mixed with the corrections."""
        checkpoint = load_checkpoint(self._retuning.run / CHECKPOINT_FOLDER)
        section = checkpoint.section
        if section.kind != recipe.model.kind:
            raise ConfigError(
                f"the recipe's model is a {recipe.model.kind}, the run's a {section.kind}",
                hint="use the recipe the run was made by",
            )
        self.base = section.base
        tokenizer = checkpoint.open_tokenizer()
        if not (out / PROMOTION_FILE).is_file():  # if this run is killed, it stays refused
            write_json(out / PROMOTION_FILE, UNDECIDED)
        old = load_task_data(recipe, root, tokenizer)
        self._mixed = mix_feedback(
            recipe,
            old,
            tokenizer,
            store=self._retuning.store,
            folder=out / FEEDBACK_FOLDER,
            replay_share=self._retuning.replay_share,
        )
        return checkpoint, self._mixed.tasks
