"""What validation rows decide: temperature, offset, thresholds, and when nothing fits.

Shapes: N rows, L labels of the task.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from instructrec_deploy.core.decision import ancestors
from instructrec_deploy.core.errors import RowInvalid
from instructrec_deploy.core.manifest import TaskSpec

SHRINK_ROWS = 20  # a label's own threshold weighs half once so many validation rows have the label
KEPT_SHARE = 0.95  # of texts that fit, where no validation row says what does not
MAX_ITERATIONS = 100


def read_labels(target: Any, spec: TaskSpec, *, where: str) -> tuple[int, ...]:
    """A row's right labels of an "any" task as sorted positions, the parents they imply included.

    Args:
        target: a label, or a list of labels; [] where none fits.
        spec: the task with its labels.
        where: the row's place, for the error.

    Raises:
        RowInvalid: no list of labels, or a label the task does not have.
    """
    names = [target] if isinstance(target, str) else target
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise RowInvalid(
            f"{where}: `target` is no list of labels", hint='write "target": ["label", ...]'
        )
    place = {label: position for position, label in enumerate(spec.labels)}
    found: set[int] = set()
    for number, name in enumerate(names):
        if name not in place:
            raise RowInvalid(
                f"{where}: label {number} of `target` is not among the task's {len(place)} labels",
                hint="add it to the task's labels, or mend the row",
            )
        found.add(place[name])
        found.update(place[parent] for parent in ancestors(name, spec.parents))
    return tuple(sorted(found))


def label_matrix(rows: Sequence[Sequence[int]], n_labels: int) -> Tensor:
    """Positions of the right labels of N rows -> [N, L] float32, 1 where a label is right."""
    found = torch.zeros(len(rows), n_labels)
    for row, positions in enumerate(rows):
        found[row, list(positions)] = 1.0
    return found


def any_loss(logits: Tensor, targets: Tensor, *, offset: float = 0.0) -> Tensor:
    """Binary cross-entropy of every label by itself.

    Summed over the labels and averaged over the rows, as a softmax's loss is, so that one learning
    rate serves both and a label's pull does not shrink with the number of the others.

    Args:
        logits: [N, L].
        targets: [N, L], 1 where a label is right.
        offset: the logit whose probability is one half; `initial_offset` finds one to start with.
    """
    centred = logits - offset
    return functional.binary_cross_entropy_with_logits(
        centred, targets.to(centred.dtype), reduction="sum"
    ) / len(logits)


def initial_offset(logits: Tensor) -> float:
    """Where an untuned model's logits [N, L] stand: their mean.

    An encoder's cosines of unrelated texts need not be near 0 (0.8 with e5): without an offset the
    first steps of an "any" task would only push all labels down.
    """
    return round(float(logits.mean()), 4)


def fit_temperature(logits: Tensor, targets: Tensor) -> float:
    """The temperature in [0.05, 20] with the least negative log likelihood.

    Args:
        logits: [N, L] float32 on validation rows.
        targets: [N] int64.

    Source: arXiv:1706.04599 (temperature scaling).
    """
    candidates = torch.logspace(-1.3, 1.3, 105)
    losses = [functional.cross_entropy(logits / t, targets).item() for t in candidates]
    return round(float(candidates[losses.index(min(losses))]), 4)


def fit_platt(logits: Tensor, targets: Tensor) -> tuple[float, float]:
    """Temperature and offset of `sigmoid((logit - offset) / temperature)` for an "any" task.

    The same two numbers for all labels: validation rows of a rare label decide little.

    Args:
        logits, targets: [N, L] on validation rows; 1 where a label is right.

    Source: Platt 1999, with its smoothed targets, so that separable rows have a finite answer.
    """
    scores, right = logits.flatten().double(), targets.flatten().double()
    n_right, n_wrong = float(right.sum()), float((1 - right).sum())
    smooth = torch.where(right > 0, (n_right + 1) / (n_right + 2), 1 / (n_wrong + 2))
    centre, spread = scores.mean(), scores.std().clamp_min(1e-6)
    scaled = (scores - centre) / spread
    weights = torch.tensor([0.0, 0.0], dtype=torch.float64, requires_grad=True)  # log slope, shift
    optimizer = torch.optim.LBFGS([weights], max_iter=MAX_ITERATIONS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = functional.binary_cross_entropy_with_logits(
            weights[0].exp() * scaled - weights[1], smooth
        )
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    slope, shift = weights[0].detach().exp(), weights[1].detach()
    temperature = float((spread / slope).clamp(0.05, 20.0))
    return round(temperature, 4), round(float(centre + shift * spread / slope), 4)


def fit_thresholds(
    probabilities: Tensor, targets: Tensor, labels: Sequence[str], *, shrink: float = SHRINK_ROWS
) -> tuple[float, dict[str, float]]:
    """Thresholds of an "any" task: one for all, and each label's own.

    The common threshold has the best micro F1. A label's own has its best F1 and is drawn to the
    common one: with n validation rows of the label it weighs n / (n + shrink).

    Args:
        probabilities, targets: [N, L] on validation rows; 1 where a label is right.
        labels: L names.

    Returns:
        The common threshold, and those of the labels that stand in any row.
    """
    common = _best_cut(probabilities.flatten(), targets.flatten())
    found = {}
    for column, label in enumerate(labels):
        n = float(targets[:, column].sum())
        if n:
            own = _best_cut(probabilities[:, column], targets[:, column])
            found[label] = round((n * own + shrink * common) / (n + shrink), 4)
    return round(common, 4), found


def fit_none_threshold(
    logits: Tensor,
    targets: Tensor,
    none_logits: Tensor | None = None,
    *,
    temperature: float = 1.0,
    kept: float = KEPT_SHARE,
) -> float:
    """The logit of "none of these": a text whose best logit is below it fits no label.

    It has the best balanced accuracy: the mean of the accuracy on rows that fit (a row is right
    where it is answered, and answered right) and the recall on rows that do not.

    Args:
        logits, targets: [N, L] and [N], validation rows that have a label.
        none_logits: [M, L], validation rows that fit no label. Without any, `kept` of the rows
            that fit go through.
        temperature: the task's; the result is compared after it.
        kept: between 0 and 1.

    Source: the best logit as a score of fit is Vaze et al. 2022 (arXiv:2110.06207) and Hendrycks et
    al. 2022 (arXiv:1911.11132); measured here in docs/adr/0006-decisions.md.
    """
    best = logits.max(dim=1).values.double() / temperature
    if none_logits is None or not len(none_logits):
        return round(float(torch.quantile(best, 1.0 - kept)), 4)
    strange = none_logits.max(dim=1).values.double() / temperature
    is_right = logits.argmax(dim=1) == targets
    cuts = _between(torch.cat([best, strange]))
    n_kept = _n_from(cuts, best[is_right])
    n_caught = len(strange) - _n_from(cuts, strange)
    scores = n_kept / len(best) + n_caught / len(strange)
    return round(_middle_of_best(cuts, scores), 4)


def calibrate(
    spec: TaskSpec, logits: Tensor, targets: Tensor, *, none_logits: Tensor | None = None
) -> dict[str, Any]:
    """Fields of the task's entry in tasks.toml that validation rows decide.

    Args:
        spec: the task with its labels.
        logits: [N, L] of validation rows that have a label.
        targets: [N] int64; for decision "any" [N, L], 1 where a label is right.
        none_logits: [M, L] of validation rows that fit no label; used where the task has a
            `none_label`.
    """
    if spec.decision == "any":
        temperature, offset = fit_platt(logits, targets)
        fields: dict[str, Any] = {"temperature": temperature, "offset": offset}
        probabilities = torch.sigmoid((logits - offset) / temperature)
        fields["threshold"], fields["thresholds"] = fit_thresholds(
            probabilities, targets, spec.labels
        )
        return fields
    logits, targets, none_logits = _leaves_only(spec, logits, targets, none_logits)
    fields = {"temperature": fit_temperature(logits, targets)}
    if spec.none_label:
        fields["none_logit"] = fit_none_threshold(
            logits, targets, none_logits, temperature=fields["temperature"]
        )
    return fields


def _leaves_only(
    spec: TaskSpec, logits: Tensor, targets: Tensor, none_logits: Tensor | None
) -> tuple[Tensor, Tensor, Tensor | None]:
    """The columns that compete in "one of", and the rows whose label is one of them."""
    above = set(spec.parents.values())
    leaves = [column for column, label in enumerate(spec.labels) if label not in above]
    if len(leaves) == len(spec.labels):
        return logits, targets, none_logits
    place = torch.full((len(spec.labels),), -1)
    place[leaves] = torch.arange(len(leaves))
    moved = place[targets]
    rows = moved >= 0
    strange = None if none_logits is None else none_logits[:, leaves]
    return logits[rows][:, leaves], moved[rows], strange


def _best_cut(scores: Tensor, targets: Tensor) -> float:
    """The threshold of scores [N] with the best F1 against targets [N]; between two scores."""
    ranked, order = scores.double().sort(descending=True)
    right = targets[order].double()
    hits = right.cumsum(0)
    taken = torch.arange(1, len(ranked) + 1)
    f1 = 2 * hits / (taken + right.sum())
    is_step = torch.ones(len(ranked), dtype=torch.bool)
    is_step[:-1] = ranked[:-1] > ranked[1:]  # equal scores are taken together
    best = int(torch.where(is_step, f1, torch.tensor(-1.0, dtype=f1.dtype)).argmax())
    below = float(ranked[best + 1]) if best + 1 < len(ranked) else 0.0
    return (float(ranked[best]) + below) / 2


def _between(values: Tensor) -> Tensor:
    """A cut below all values, one between each two that are next to each other, one above all."""
    ranked = values.sort().values
    middle = (ranked[:-1] + ranked[1:]) / 2
    return torch.cat([ranked[:1] - 1.0, middle, ranked[-1:] + 1.0])


def _n_from(cuts: Tensor, values: Tensor) -> Tensor:
    """How many values are at least as large as each cut."""
    return len(values) - torch.searchsorted(values.sort().values, cuts)


def _middle_of_best(cuts: Tensor, scores: Tensor) -> float:
    """The middle of the first run of cuts that all have the best score."""
    is_best = scores == scores.max()
    first = int(is_best.int().argmax())
    ends = torch.nonzero(~is_best[first:])
    last = first + int(ends[0]) - 1 if len(ends) else len(cuts) - 1
    return float(cuts[first] + cuts[last]) / 2
