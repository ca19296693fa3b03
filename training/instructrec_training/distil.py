"""A teacher's scores of every training row: computed once, kept in memory.

The teacher is a checkpoint of a run or a bundle. It reads a row with its own tokenizer, and it
scores the student's labels: an instruction encoder any labels, a fixed head the ones it has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from instructrec_deploy.core.errors import FileMissing, InstructRecError, TeacherUnfit
from instructrec_deploy.core.manifest import SPAN_HEADS, TaskBook, TaskSpec, parse_toml
from instructrec_deploy.core.request import Question
from instructrec_deploy.evaluation.requests import request_of
from instructrec_deploy.models.checkpoint import SECTION_FILE, Checkpoint, load_checkpoint
from instructrec_training.data import TaskData, outputs_by_row
from instructrec_training.learners import EncoderLearner, HeadLearner, Learner
from instructrec_training.objectives.labelled import LabelObjective
from instructrec_training.recipe import TrainingPart
from instructrec_training.tokenize_rows import rows_of
from instructrec_training.tracking import Tracker

TEACHER_BATCH = 128
LEAST_SCORE = 1e-8  # a bundle's float32 score may be 0, whose logarithm is not finite
BUNDLE_FILE = "bundle.json"


def add_teacher(
    learner: Learner,
    tasks: Sequence[TaskData],
    settings: TrainingPart,
    tracker: Tracker,
    *,
    device: torch.device,
) -> None:
    """Let each task of single labels learn from the recipe's teacher, if it names one.

    Raises:
        FileMissing: no checkpoint and no bundle there.
        TeacherUnfit: the teacher has other labels.
    """
    if not settings.teacher:
        return
    folder = Path(settings.teacher)
    for number, task in enumerate(tasks):
        objective = learner.objectives[number]
        if isinstance(objective, LabelObjective) and task.spec.decision == "one":
            tracker.say(f"teacher: {task.name}, {len(task.train)} rows ...")
            scores = teacher_logits(folder, task, settings, device=device)
            pairs = zip(task.train, scores, strict=True)
            objective.teacher = {row.text: logits for row, logits in pairs}


def teacher_logits(
    folder: Path, task: TaskData, settings: TrainingPart, *, device: torch.device
) -> list[Tensor]:
    """Logits [L] of each training row, in the order of the task's labels."""
    if (folder / BUNDLE_FILE).is_file():
        return _bundle_logits(folder, task)
    if not (folder / SECTION_FILE).is_file():
        raise FileMissing(
            f"training.teacher {str(folder)!r} is neither a checkpoint nor a bundle",
            hint="name RUN/checkpoint of a run, or the folder of a bundle",
        )
    checkpoint = load_checkpoint(folder)
    if checkpoint.section.kind in SPAN_HEADS:
        raise TeacherUnfit(
            f"training.teacher: a {checkpoint.section.kind} model scores no labels of texts",
            hint="take a sequence classifier or an instruction encoder",
        )
    spec, is_tuned = _teacher_spec(folder, checkpoint, task)
    section, tokenizer = checkpoint.section, checkpoint.open_tokenizer()
    examples = [row.example for row in task.train if row.example is not None]
    rows = tuple(rows_of(examples, spec, tokenizer, is_training=True))
    taught = TaskData(task.name, spec, rows, (), (), 1.0)
    if section.kind == "sequence-classification":
        teacher: Learner = HeadLearner(checkpoint, taught, settings)
    else:
        if not is_tuned:  # vectors learned for other labels say nothing about these
            checkpoint = replace(checkpoint, label_vectors={})
        teacher = EncoderLearner(checkpoint, [taught], tokenizer, settings)
    teacher.to(device).eval()
    with torch.no_grad():
        logits = outputs_by_row(rows, TEACHER_BATCH, teacher.objectives[0].outputs)
    order = torch.tensor([spec.labels.index(label) for label in task.spec.labels])
    return [row[order] for row in logits]


def _teacher_spec(folder: Path, checkpoint: Checkpoint, task: TaskData) -> tuple[TaskSpec, bool]:
    """The task as the teacher was tuned for it; else the student's own, and False."""
    labels = set(task.spec.labels)
    if checkpoint.section.kind == "sequence-classification":
        if set(checkpoint.section.labels) != labels:
            raise _other_labels(task, set(checkpoint.section.labels))
        return task.spec.model_copy(update={"labels": checkpoint.section.labels}), True
    file = folder.parent / "tasks.toml"
    if file.is_file():
        book = parse_toml(TaskBook, file.read_text(encoding="utf-8"), where=str(file))
        known = book.tasks.get(task.name)
        if known is not None and set(known.labels) == labels and known.decision == "one":
            return known, True
    return task.spec, False


def _bundle_logits(folder: Path, task: TaskData) -> list[Tensor]:
    """Logarithms of a bundle's scores: softened, they rank and differ as its logits do."""
    from instructrec_deploy.runtime.predictor import Predictor, question_of

    examples = [row.example for row in task.train if row.example is not None]
    with Predictor(folder, guard=False) as predictor:
        known = predictor.bundle.tasks.tasks.get(task.name)
        if known is not None and set(known.labels) == set(task.spec.labels):
            question = Question(task=task.name)
        elif predictor.bundle.manifest.model.kind == "sequence-classification":
            raise _other_labels(task, set(known.labels) if known else set())
        else:
            words, labels = task.spec.wording(), task.spec.labels
            question = question_of(predictor.bundle, instruction=words, candidates=labels)
        requests = [request_of(example, question, top_k=0) for example in examples]
        answers = []
        for outcome in predictor.predict_requests(requests):
            if isinstance(outcome, InstructRecError):
                raise outcome
            answers.append(outcome)
    found = []
    for answer in answers:
        score = {pair.label: pair.score for pair in answer.answers[0].scores}
        logs = [math.log(max(score[label], LEAST_SCORE)) for label in task.spec.labels]
        found.append(torch.tensor(logs))
    return found


def _other_labels(task: TaskData, theirs: set[str]) -> TeacherUnfit:
    n_missing = len(set(task.spec.labels) - theirs)
    return TeacherUnfit(
        f"training.teacher: it has {len(theirs)} labels, {n_missing} of the "
        f"{len(task.spec.labels)} labels of task {task.name!r} are not among them",
        hint="take a teacher tuned for the same labels, or an instruction encoder",
    )
