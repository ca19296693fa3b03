"""The way of a correction into a store: does it fit the task, what says the policy, keep it.

A text that the policy masks is kept masked: the words it hides are never written. A text that the
policy blocks is refused, and so is a correction whose marks the masking would cut: without the
text, or with a mark that has lost its words, it could teach nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from instructrec_deploy.core.errors import (
    FeedbackInvalid,
    FeedbackRefused,
    LabelUnknown,
    TaskUnknown,
)
from instructrec_deploy.core.feedback import WORDS, Feedback, Receipt, SpanMark, Target
from instructrec_deploy.core.manifest import TaskBook, TaskSpec
from instructrec_deploy.core.result import Finding
from instructrec_deploy.core.task import SHAPES, Shape
from instructrec_deploy.runtime.feedback_store import FeedbackStore
from instructrec_deploy.runtime.jobs import Guarded, GuardLike
from instructrec_deploy.safety.guard import Guard, GuardedText
from instructrec_deploy.safety.guards import PolicyGuards
from instructrec_deploy.safety.marks import move_spans

MAX_NAMED = 12  # labels or tasks named in a hint
Check = Callable[[str, Guard], GuardedText]


class FeedbackIntake:
    """Takes corrections for one bundle.

    Args:
        store: where they are kept.
        book: the bundle's tasks; None where no bundle is at hand: any task, any label.
        guard: the bundle's policy; None keeps every text as it is.
        check: checks texts by it where it asks a model, too; None: by its rules alone.
    """

    def __init__(
        self,
        store: FeedbackStore,
        *,
        book: TaskBook | None,
        guard: GuardLike | None,
        check: Check | None = None,
    ) -> None:
        self._store = store
        self._book = book
        self._guard = guard
        self._check = check

    def take(self, feedback: Feedback) -> Receipt:
        """Check, mask and keep a correction; it is on the disk when this returns.

        Raises:
            TaskUnknown, LabelUnknown: the bundle has no such task, the task no such label.
            FeedbackInvalid: it names no task, or the answer has another form than the task's.
            FeedbackRefused: the policy blocks the text, or would mask a part of what is marked.
            FeedbackFull, Overloaded, FeedbackUnusable: as `FeedbackStore.add`.
        """
        fitting = fit_task(feedback, self._book)
        guard = self._guard
        if isinstance(guard, PolicyGuards):
            guard = guard.keeping(fitting.task)
        clean = fitting if guard is None else mask_feedback(fitting, guard, check=self._check)
        receipt = self._store.add(clean)
        is_masked = (clean.text, clean.text2) != (feedback.text, feedback.text2)
        return replace(receipt, text=clean.text) if is_masked else receipt

    def close(self) -> None:
        """Close the store."""
        self._store.close()


def fit_task(feedback: Feedback, book: TaskBook | None) -> Feedback:
    """The correction with its task named, after the task has been asked whether it fits.

    Raises:
        TaskUnknown, LabelUnknown, FeedbackInvalid: as `FeedbackIntake.take`.
    """
    name = feedback.task or (book.default_task if book else "")
    if book is None:
        if not name:
            raise FeedbackInvalid("which task does it correct?", hint="name the task")
        return feedback
    spec = book.tasks.get(name)
    if spec is None:
        known = ", ".join(sorted(book.tasks)[:MAX_NAMED]) or "none"
        raise TaskUnknown(
            "the bundle has no such task" if name else "no task named, and no default task",
            hint=f"its tasks: {known}",
        )
    for target in (feedback.right, feedback.predicted):
        if not target.is_empty:
            _check_form(target, name, spec)
    # What a model said may come from a version with other labels: only the right ones must fit.
    _check_labels(feedback.right, name, spec)
    return replace(feedback, task=name)


def mask_feedback(feedback: Feedback, guard: GuardLike, *, check: Check | None = None) -> Feedback:
    """The correction as it may be kept; `check`: of its texts, where a model is asked, too.

    Raises:
        FeedbackRefused: the policy blocks a text of it, or masks a part of a mark or of a label.
    """
    text, findings = _guarded(feedback.text, guard, check)
    text2, _ = _guarded(feedback.text2, guard, check) if feedback.text2 else ("", ())
    words: dict[str, Any] = {
        name: _guarded(getattr(feedback, name), guard)[0] for name in WORDS if name != "task"
    }
    for label in _labels_of(feedback):
        if _guarded(label, guard)[0] != label:
            raise FeedbackRefused(
                "a label holds personal data", hint="correct with labels that name nobody"
            )
    moved = replace(feedback, text=text, text2=text2, **words)
    if text is feedback.text:
        return moved

    def move(marks: Iterable[SpanMark | None]) -> list[SpanMark]:
        return _moved([m for m in marks if m is not None], findings)

    head_and_tail = move((feedback.head, feedback.tail))
    head, tail = head_and_tail or (None, None)
    return replace(
        moved,
        right=_target_moved(feedback.right, move(feedback.right.spans or ())),
        predicted=_target_moved(feedback.predicted, move(feedback.predicted.spans or ())),
        head=head,
        tail=tail,
    )


def _check_form(target: Target, task: str, spec: TaskSpec) -> None:
    shape = SHAPES[spec.kind]
    if shape is Shape.GENERATE:
        raise FeedbackInvalid(
            f"task {task!r} answers with text, which no correction can hold yet",
            hint="correct tasks that answer with labels or spans",
        )
    if shape is Shape.EXTRACT and target.spans is None:
        raise FeedbackInvalid(
            f"task {task!r} answers with spans, the correction with labels",
            hint="send spans with start, end and type; an empty list where there is nothing",
        )
    if shape is Shape.CLASSIFY and len(target.labels) != 1:
        raise FeedbackInvalid(
            f"task {task!r} answers with one label, the correction with another form or number",
            hint="send the one right label",
        )


def _check_labels(target: Target, task: str, spec: TaskSpec) -> None:
    if not spec.labels:  # an open task: every request brings its own candidates
        return
    given = {*target.labels, *(span.type for span in target.spans or ())}
    if not given <= set(spec.labels):
        more = f" and {len(spec.labels) - MAX_NAMED} more" if len(spec.labels) > MAX_NAMED else ""
        raise LabelUnknown(
            f"the right answer is none of the {len(spec.labels)} labels of task {task!r}",
            hint=f"its labels: {', '.join(spec.labels[:MAX_NAMED])}{more}",
        )


def _labels_of(feedback: Feedback) -> set[str]:
    targets = (feedback.right, feedback.predicted)
    spans = [span.type for target in targets for span in target.spans or ()]
    return {*(label for target in targets for label in target.labels), *spans}


def _guarded(
    text: str, guard: GuardLike, check: Check | None = None
) -> tuple[str, tuple[Finding, ...]]:
    if check is not None and isinstance(guard, Guard):
        guarded: Guarded = check(text, guard)
    else:
        guarded = guard.check_input(text)
    if guarded.verdict.action == "block":
        raise FeedbackRefused(
            "the safety policy blocks a text of this correction, so it is not kept",
            hint="correct other texts; the policy is safety.toml of the bundle",
        )
    return guarded.text, guarded.verdict.findings


def _moved(marks: list[SpanMark], findings: tuple[Finding, ...]) -> list[SpanMark]:
    places = move_spans(findings, [(mark.start, mark.end) for mark in marks])
    moved = []
    for mark, place in zip(marks, places, strict=True):
        if place is None:
            raise FeedbackRefused(
                f"masking would cut into the span from {mark.start} to {mark.end}",
                hint="mark whole words around personal data, or leave this correction out",
            )
        moved.append(SpanMark(*place, mark.type))
    return moved


def _target_moved(target: Target, spans: list[SpanMark]) -> Target:
    return target if target.spans is None else replace(target, spans=tuple(spans))
