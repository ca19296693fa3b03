"""How well a safety filter finds personal data, and tells abuse from the rest.

The filter comes as a function or as what it found, so that any filter is measured by the same code.
No figure, fact or error holds a text. Shapes: N rows, R resamples, U different scores.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from instructrec_deploy.core.errors import ConfigError
from instructrec_deploy.core.example import Example
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.evaluation.figures import (
    DECIMALS,
    N_RESAMPLES,
    Figures,
    Interval,
    interval_of,
    mean_intervals,
    ratio,
    resampled_sums,
)
from instructrec_deploy.evaluation.metrics import Ints, class_metrics
from instructrec_deploy.evaluation.spans import f1_scores, type_scores
from instructrec_deploy.evaluation.targets import entities_of, kind_of, label_set_of, types_of

Span = tuple[str, int, int]  # type; start and end in code points, half-open
MAX_NAMED = 5  # labels named in an error


@dataclass(frozen=True, slots=True)
class Checked:
    """What a filter says about a text."""

    spans: tuple[Span, ...] = ()  # personal data
    is_flagged: bool = False  # for its content, at least
    is_blocked: bool = False
    score: float | None = None  # higher: rather abuse; None: it has no scores


Check = Callable[[str], Checked]


@dataclass(frozen=True, slots=True)
class SafetyEvaluation:
    """What was measured; None where no row is of that kind."""

    personal_data: Figures | None = None
    hard_negatives: Figures | None = None
    content: Figures | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON output."""
        parts = {
            "personal_data": self.personal_data,
            "hard_negatives": self.hard_negatives,
            "content": self.content,
        }
        return {name: figures.to_dict() for name, figures in parts.items() if figures}


def evaluate_safety(
    examples: Sequence[Example],
    check: Check,
    *,
    public_types: Collection[str],
    renamed: Mapping[str, str],
    abuse_labels: Collection[str] = (),
    seed: int = 0,
) -> SafetyEvaluation:
    """Check every row's text and compare with its target: personal data by spans, content by label.

    Args:
        examples: rows of spans (`pii`, `ner`), of labels (`safety`, `classification`), or both.
        check: the filter.
        public_types: the types of personal data that a filter can name.
        renamed: the rows' own word for a type -> one of `public_types`. Types that are neither
            renamed nor public are left out, and so are findings of types that no row asks for.
        abuse_labels: the labels that mean abuse; every other one is benign.
        seed: of the intervals.

    Raises:
        ConfigError: nothing says which labels mean abuse, a renamed type is not public, or no row
            can be measured.
        RowInvalid: a target does not suit its row.
    """
    spans = [row for row in examples if kind_of(row) is TaskKind.NER]
    labelled = [row for row in examples if kind_of(row) is not TaskKind.NER]
    names = _names(public_types, renamed)
    is_abuse = _is_abuse(labelled, abuse_labels)
    known = {kind for row in spans for kind in types_of(row)}
    measured = {names[kind] for kind in known if kind in names}
    negatives = [row for row in spans if not row.target]
    if not (measured or negatives or labelled):
        raise ConfigError(
            f"none of the rows' types is measured: {', '.join(sorted(known)[:MAX_NAMED])}",
            hint=f"say what they are, --rename TYPE=NAME; names: {', '.join(sorted(public_types))}",
        )
    personal = hard = content = None
    found = [check(row.text).spans for row in spans]
    if measured:
        personal = span_figures(
            [row.text for row in spans],
            [_values(row, names) for row in spans],
            found,
            types=measured,
            seed=seed,
        )
        facts = {**personal.facts, "left_out_types": sorted(known - names.keys())}
        personal = Figures(personal.n, personal.values, facts)
    if negatives:
        hit = [float(bool(one)) for row, one in zip(spans, found, strict=True) if not row.target]
        hard = Figures(len(hit), mean_intervals(["hit"], np.array(hit)[:, None], seed=seed))
    if labelled:
        content = content_figures(is_abuse, [check(row.text) for row in labelled], seed=seed)
    return SafetyEvaluation(personal, hard, content)


def span_figures(
    texts: Sequence[str],
    values: Sequence[Sequence[Span]],
    found: Sequence[Sequence[Span]],
    *,
    types: Collection[str] | None = None,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Figures:
    """`precision`, `recall`, `f1` over all values of all rows, and the share that `leaked`.

    A value counts as found where a finding of its type overlaps it, each finding once; a finding
    that overlaps no value of its type is wrong. Leaked: a letter or digit of the value is covered
    by no finding of any type. 0 of 0 counts as 0. Whole rows are resampled. `per_type` has the
    same figures for each type.

    Args:
        types: findings of others are not judged, but cover what they cover. None: all are.

    Raises:
        ValueError: no rows, or lists of different lengths.
    """
    if not texts:
        raise ValueError("no rows")
    hits, n_found, n_values, leaked = (Counter[str]() for _ in range(4))
    columns = np.zeros((len(texts), 4))
    for row, (text, gold, findings) in enumerate(zip(texts, values, found, strict=True)):
        left = [one for one in findings if types is None or one[0] in types]
        n_found.update(kind for kind, _, _ in left)
        columns[row, 1:3] = len(left), len(gold)
        covered = {at for _, start, end in findings for at in range(start, end)}
        for kind, start, end in gold:
            n_values[kind] += 1
            hit = next((f for f in left if f[0] == kind and f[1] < end and start < f[2]), None)
            if hit:
                hits[kind] += 1
                columns[row, 0] += 1
                left.remove(hit)
            if not covered.issuperset(at for at in range(start, end) if text[at].isalnum()):
                leaked[kind] += 1
                columns[row, 3] += 1
    values_of, samples = (
        np.column_stack([f1_scores(sums[:, :3]), ratio(sums[:, 3], sums[:, 2])])
        for sums in (
            columns.sum(axis=0, keepdims=True),
            resampled_sums(columns, seed=seed, n_resamples=n_resamples),
        )
    )
    names = ("f1", "precision", "recall", "leaked")
    per_type = type_scores(hits, n_found, n_values)
    for kind, scores in per_type.items():
        scores["leaked"] = round(leaked[kind] / max(n_values[kind], 1), DECIMALS)
    return Figures(
        len(texts),
        {name: interval_of(values_of[0, i], samples[:, i]) for i, name in enumerate(names)},
        {"n_values": n_values.total(), "n_found": n_found.total(), "per_type": per_type},
    )


def content_figures(
    is_abuse: Sequence[bool], checked: Sequence[Checked], *, seed: int = 0
) -> Figures:
    """`macro_f1` of flagged against not, and what share of which rows is stopped.

    `abuse_found`: of the abusive rows, those flagged. `benign_flagged`, `benign_blocked`: of the
    others. A share of no rows is left out. `auc` only where every row has a score.

    Raises:
        ValueError: no rows, or lists of different lengths.
    """
    flagged = [one.is_flagged for one in checked]
    figures = class_metrics([*map(str, is_abuse)], [*map(str, flagged)], seed=seed)
    values = {"macro_f1": figures.macro_f1}
    truth = np.array(is_abuse, dtype=bool)
    told = np.array([[one.is_flagged, one.is_blocked] for one in checked], dtype=np.float64)
    if truth.any():
        values |= mean_intervals(["abuse_found"], told[truth, :1], seed=seed)
    if not truth.all():
        values |= mean_intervals(["benign_flagged", "benign_blocked"], told[~truth], seed=seed)
    scores = [one.score for one in checked if one.score is not None]
    if len(scores) == len(checked) and truth.any() and not truth.all():
        values["auc"] = auc(is_abuse, scores, seed=seed)
    return Figures(len(checked), values, {"n_abuse": int(truth.sum())})


def auc(
    is_abuse: Sequence[bool],
    scores: Sequence[float],
    *,
    seed: int = 0,
    n_resamples: int = N_RESAMPLES,
) -> Interval:
    """How often an abusive text has the higher score of two; equal scores count half.

    Both classes are resampled by themselves.

    Raises:
        ValueError: one of them has no row.
    """
    truth = np.array(is_abuse, dtype=bool)
    levels, level = np.unique(np.array(scores, dtype=np.float64), return_inverse=True)
    abusive, benign = level[truth], level[~truth]
    if not (len(abusive) and len(benign)):
        raise ValueError("an AUC needs rows of both classes")

    def share(above: Ints, below: Ints) -> float:
        n_below = np.bincount(below, minlength=len(levels))
        wins = np.bincount(above, minlength=len(levels)) * (np.cumsum(n_below) - n_below / 2)
        return float(wins.sum() / (len(above) * len(below)))

    rng = np.random.default_rng(seed)
    samples = [
        share(
            abusive[rng.integers(0, len(abusive), len(abusive))],
            benign[rng.integers(0, len(benign), len(benign))],
        )
        for _ in range(n_resamples)
    ]
    return interval_of(share(abusive, benign), np.array(samples))


def _names(public_types: Collection[str], renamed: Mapping[str, str]) -> dict[str, str]:
    if wrong := sorted(set(renamed.values()) - set(public_types)):
        raise ConfigError(
            f"no types of personal data: {', '.join(wrong)}",
            hint=f"rename to one of {', '.join(sorted(public_types))}",
        )
    return {name: name for name in public_types} | dict(renamed)


def _values(row: Example, names: Mapping[str, str]) -> list[Span]:
    """The row's values of types that are measured, by start."""
    return [
        (names[kind], start, end) for start, end, kind in sorted(entities_of(row)) if kind in names
    ]


def _is_abuse(rows: Sequence[Example], abuse_labels: Collection[str]) -> list[bool]:
    wanted, sets = set(abuse_labels), [label_set_of(row) for row in rows]
    labels = sorted({label for labels in sets for label in labels})
    if rows and not (wanted and wanted <= set(labels)):
        named = ", ".join(map(repr, labels[:MAX_NAMED]))
        missing = ", ".join(map(repr, sorted(wanted - set(labels))))
        raise ConfigError(
            f"no row has the label {missing}" if wanted else "which label means abuse is not said",
            hint=f"--abuse-label LABEL, as often as needed; the rows' labels: {named}",
        )
    return [bool(wanted & labels) for labels in sets]
