"""How good a variant's answers are: against the rows, against the reference, alone in company.

Shapes: N rows, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from instructrec_deploy.core.errors import ConfigError
from instructrec_deploy.core.example import Example
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.evaluation.figures import mean_intervals
from instructrec_deploy.evaluation.paired import compare_paired
from instructrec_deploy.evaluation.targets import label_of
from instructrec_deploy.tasks.base import Floats
from instructrec_deploy.tasks.classify import decode_answers, probabilities

TIE = 1e-6  # labels whose probabilities are nearer than this may change places


@dataclass(frozen=True, slots=True)
class Answers:
    """A variant's answers to all rows: each alone, and in batches as the rows come."""

    labels: tuple[str, ...]
    alone: Floats  # [N, L] probabilities
    batched: Floats  # [N, L]

    @classmethod
    def of(cls, alone: Floats, batched: Floats, instruction: Instruction) -> Answers:
        """From logits [N, L].

        Raises:
            InternalError: a logit is not a number.
        """
        found = decode_answers(
            alone,
            instruction.labels,
            temperature=instruction.temperature,
            top_ks=[1] * len(alone),
            task=instruction.task,
            decision=instruction.decision,
        )
        scores = [probabilities(one, instruction.temperature) for one in (alone, batched)]
        return cls(tuple(answer.label for answer in found), *scores)

    @property
    def n_other_in_batch(self) -> int:
        """Rows whose best label is another one in company; ties are none."""
        best = self.alone.argmax(axis=1)
        rows = np.arange(len(best))
        ahead = self.batched.max(axis=1) - self.batched[rows, best]
        return int((ahead > TIE).sum())


def right_labels(examples: Sequence[Example], instruction: Instruction) -> list[str]:
    """The rows' labels.

    Raises:
        RowInvalid: a row has none.
        ConfigError: no row's label is among the task's.
    """
    gold = [label_of(example) for example in examples]
    known = {*instruction.labels, instruction.decision.none_label}
    if known.isdisjoint(gold):
        raise ConfigError(
            f"no row has a label of task {instruction.task!r}",
            hint="name the rows' task with --task, or other rows with --data",
        )
    return gold


def answer_facts(
    own: Answers, reference: Answers, gold: Sequence[str], *, none_label: str = "", seed: int = 0
) -> dict[str, Any]:
    """Plain data: accuracy, what it lost against the reference, and how far scores moved.

    Args:
        own, reference: of the same rows.
        gold: the right labels; () where they are not known.
        none_label: rows with it are right without a label, too.
        seed: of the intervals.
    """
    moved = np.abs(own.alone - reference.alone).max(axis=1)
    same = np.array([a == b for a, b in zip(own.labels, reference.labels, strict=True)])
    facts: dict[str, Any] = {
        "n": len(own.labels),
        "same_label": round(float(same.mean()), 6),
        "moved_mean": round(float(moved.mean()), 7),
        "moved_max": round(float(moved.max()), 7),
        "batch_moved_max": round(float(np.abs(own.alone - own.batched).max()), 7),
        "n_other_in_batch": own.n_other_in_batch,
    }
    if gold:
        hits = _hits(own, gold, none_label)
        accuracy = mean_intervals(["accuracy"], np.array(hits, float)[:, None], seed=seed)
        paired = compare_paired(_hits(reference, gold, none_label), hits, seed=seed)
        found = accuracy["accuracy"]
        facts |= {
            "accuracy": round(found.value, 6),
            "accuracy_interval": [round(found.low, 6), round(found.high, 6)],
            "loss_points": round(paired.loss.value, 4),
            "loss_interval": [round(paired.loss.low, 4), round(paired.loss.high, 4)],
            "hits": pack_hits(hits),
        }
    return facts


def pack_hits(hits: Sequence[bool]) -> str:
    """Which rows were right, in hexadecimal digits of four rows each; the last is filled up."""
    return np.packbits(np.array(hits, bool)).tobytes().hex()


def unpack_hits(packed: str, n: int) -> list[bool]:
    """What `pack_hits` packed; `n` rows."""
    bits = np.unpackbits(np.frombuffer(bytes.fromhex(packed), np.uint8), count=n)
    return [bool(bit) for bit in bits]


def _hits(answers: Answers, gold: Sequence[str], none_label: str) -> list[bool]:
    return [
        found == right or (not found and right == none_label)
        for found, right in zip(answers.labels, gold, strict=True)
    ]
