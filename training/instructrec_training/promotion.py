"""May a retuned model take the old one's place? Both answer the old tests, row by row.

The rule: an old test is *lost* when the new weights score more than `max_loss` points below the
old ones and at least 80 % of paired bootstrap resamples show a loss. One lost test refuses the
model. A larger loss that is not that sure (a test of few rows) is *unclear*: it is named, and does
not refuse.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from instructrec_deploy.core.bundle import TASKS_FILE, read_text
from instructrec_deploy.core.manifest import TaskBook, parse_toml
from instructrec_deploy.core.request import Request
from instructrec_deploy.evaluation.paired import Paired, compare_paired
from instructrec_deploy.export.reference import Reference
from instructrec_deploy.models.checkpoint import load_checkpoint
from instructrec_training.run import CHECKPOINT_FOLDER

# A false refusal costs a look at the figures, a false promotion costs callers: chance alone may
# refuse a small test in one case of five, and two rows lost without a gain do.
CERTAINTY = 0.8
RULE = (
    "refused when a test is lost: more than max_loss_points below the old weights, with a loss in "
    f"at least {CERTAINTY:.0%} of the paired bootstrap resamples"
)


@dataclass(frozen=True, slots=True)
class HeldRows:
    """Rows of one task that neither model was tuned on."""

    task: str
    split: str  # test, or validation where the recipe has no test rows
    requests: tuple[Request, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Promotion:
    """The decision with its figures."""

    tests: Mapping[str, Paired]  # the old tests, by task
    feedback_tests: Mapping[str, Paired]  # held-out corrections, by task
    splits: Mapping[str, str]
    max_loss: float

    def verdict(self, test: Paired) -> str:
        """kept, unclear or lost."""
        if test.loss.value <= self.max_loss:
            return "kept"
        return "lost" if test.certainty >= CERTAINTY else "unclear"

    @property
    def lost(self) -> list[str]:
        """Tasks whose old test was lost."""
        return [task for task, test in self.tests.items() if self.verdict(test) == "lost"]

    @property
    def reason(self) -> str:
        """Why it is promoted or not, in words."""
        named = self.lost or [t for t, found in self.tests.items() if self.verdict(found) != "kept"]
        words = "; ".join(_lost(task, self.tests[task]) for task in named)
        if self.lost:
            return f"{words}; allowed are {self.max_loss:g} points"
        return f"no old test was lost{f', but it is unclear whether {words}' if words else ''}"

    def lines(self) -> list[str]:
        """All comparisons in words, for people."""
        old = [f"old test: {_compared(t, p)}: {self.verdict(p)}" for t, p in self.tests.items()]
        new = [
            f"feedback test: {task} accuracy {test.old_accuracy:.4f} -> {test.new_accuracy:.4f} "
            f"(n = {test.n})"
            for task, test in self.feedback_tests.items()
        ]
        return [*old, *new, f"promoted: {self.reason}"] if not self.lost else [*old, *new]

    def to_dict(self) -> dict[str, Any]:
        """Content of promotion.json."""
        return {
            "promoted": not self.lost,
            "reason": self.reason,
            "rule": RULE,
            "max_loss_points": self.max_loss,
            "decided": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "tests": {
                task: {
                    "split": self.splits[task],
                    **test.to_dict(),
                    "verdict": self.verdict(test),
                }
                for task, test in self.tests.items()
            },
            "feedback_tests": {task: t.to_dict() for task, t in self.feedback_tests.items()},
        }


def decide(
    old_run: Path,
    new_run: Path,
    tests: Sequence[HeldRows],
    feedback_tests: Sequence[HeldRows],
    *,
    max_loss: float,
) -> Promotion:
    """Let both runs' checkpoints answer and compare them; each with its own tasks.toml.

    Args:
        old_run, new_run: run folders.
        tests: of the recipe.
        feedback_tests: corrections that were kept out of the tuning.
        max_loss: points that a test may lose.
    """
    groups = (*tests, *feedback_tests)
    old, new = _hits(old_run, groups), _hits(new_run, groups)
    pairs = [compare_paired(o, n) for o, n in zip(old, new, strict=True)]
    return Promotion(
        tests={g.task: pair for g, pair in zip(tests, pairs, strict=False)},
        feedback_tests={
            g.task: pair for g, pair in zip(feedback_tests, pairs[len(tests) :], strict=True)
        },
        splits={group.task: group.split for group in tests},
        max_loss=max_loss,
    )


def _hits(run: Path, groups: Sequence[HeldRows]) -> list[list[bool]]:
    """Whether a run's checkpoint answers each row of each group right."""
    book = parse_toml(TaskBook, read_text(run / TASKS_FILE), where=str(run / TASKS_FILE))
    reference = Reference(load_checkpoint(run / CHECKPOINT_FOLDER))
    found = []
    for group in groups:
        spec = book.tasks[group.task]
        asked = group.requests
        order = sorted(range(len(asked)), key=lambda i: len(asked[i].text))  # less padding
        best = reference.logits(group.task, spec, [asked[i] for i in order]).argmax(axis=1)
        hits = [False] * len(order)
        for i, position in zip(order, best.tolist(), strict=True):
            hits[i] = spec.labels[position] == group.labels[i]
        found.append(hits)
    return found


def _lost(task: str, test: Paired) -> str:
    return (
        f"task {task!r} lost {test.loss.value:.2f} points "
        f"[{test.loss.low:.2f}, {test.loss.high:.2f}] on {test.n} old test rows"
    )


def _compared(task: str, test: Paired) -> str:
    return (
        f"{task} accuracy {test.old_accuracy:.4f} -> {test.new_accuracy:.4f} "
        f"(loss {test.loss.value:+.2f} points [{test.loss.low:+.2f}, {test.loss.high:+.2f}], "
        f"n = {test.n})"
    )
