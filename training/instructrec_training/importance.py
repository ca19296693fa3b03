"""How much each layer, attention head and feed-forward neuron matters, measured on rows.

Shapes: L layers, N heads, D size of a head, F feed-forward width, H hidden size.

Heads and neurons: the first-order Taylor estimate of what the loss changes by when a unit's output
weights become zero, |sum of weight * gradient|, the mean over batches. Layers: the loss itself with
the layer left out, one after another.

Source: arXiv:1905.10650 and arXiv:1906.10771 (Taylor); layers as in arXiv:2004.03844, but chosen by
the measured loss.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from instructrec_deploy.models.shrink import layers_of, linear, parts_of, reader_places
from instructrec_deploy.models.span_reader import SpanReader
from instructrec_training.data import TaskData
from instructrec_training.learners import Learner
from instructrec_training.rows import Row

BATCH = 16  # rows of one estimate

Batches = Sequence[tuple[int, Sequence[Row]]]  # task number, rows


@dataclass(frozen=True, slots=True)
class Importance:
    """Larger matters more.

    heads: for each layer [N]. neurons: for each layer [F], behind them the span reader's layers.
    """

    heads: tuple[Tensor, ...]
    neurons: tuple[Tensor, ...]


def draw_batches(tasks: Sequence[TaskData], n_rows: int, *, seed: int) -> Batches:
    """Training rows of every task, as many of each, rows of like length together."""
    share = max(BATCH, n_rows // max(1, len(tasks)))
    found: list[tuple[int, Sequence[Row]]] = []
    for number, task in enumerate(tasks):
        rng = random.Random(f"{seed} {task.name}")
        rows = rng.sample(task.train, min(share, len(task.train)))
        rows.sort(key=lambda row: len(row.ids))
        found += [(number, rows[at : at + BATCH]) for at in range(0, len(rows), BATCH)]
    return found


def measure_units(
    learner: Learner, base: Any, reader: SpanReader | None, batches: Batches
) -> Importance:
    """Importance of every head and neuron; the weights are left as they were.

    Args:
        learner: in evaluation mode.
        base: its bare encoder.
        reader: its span reader, if it has one.
        batches: rows that say what matters.
    """
    parts = parts_of(base)
    outers = [linear(part.outer) for part in parts]
    outers += [linear(outer) for _, outer in reader_places(reader)]
    outputs = [linear(part.output) for part in parts]
    neurons = [torch.zeros(layer.in_features) for layer in outers]
    heads = [torch.zeros(part.n_heads) for part in parts]
    watched = [layer.weight for layer in (*outers, *outputs)]
    frozen = [weight for weight in watched if not weight.requires_grad]
    for weight in frozen:
        weight.requires_grad_(True)
    for step, (task, rows) in enumerate(batches):
        learner.new_step(step)
        learner.new_evaluation()
        learner.zero_grad(set_to_none=True)
        learner(task, rows).backward()
        for total, layer in zip(neurons, outers, strict=True):
            total += _taylor(layer).abs()
        for total, layer in zip(heads, outputs, strict=True):
            total += _taylor(layer).view(len(total), -1).sum(1).abs()
    learner.zero_grad(set_to_none=True)
    learner.new_evaluation()
    for weight in frozen:
        weight.requires_grad_(False)
    return Importance(tuple(heads), tuple(neurons))


def choose_layers(
    learner: Learner,
    base: Any,
    batches: Batches,
    n_kept: int,
    *,
    n_protected: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> list[int]:
    """Which layers to keep: one after another the layer goes without which the loss is least.

    Args:
        learner: in evaluation mode.
        base: its bare encoder; left as it was.
        batches: rows that say what matters.
        n_kept: so many stay.
        n_protected: so many at the top are never taken out.
        say: told what went.
    """
    layers = layers_of(base)
    kept = list(range(len(layers)))
    top = set(kept[len(kept) - n_protected :])
    holder = base.encoder if hasattr(base, "encoder") else base.transformer
    try:
        while len(kept) > n_kept:
            losses = {}
            for number in kept:
                if number in top:
                    continue
                holder.layer = nn.ModuleList(layers[n] for n in kept if n != number)
                losses[number] = mean_loss(learner, batches)
            gone = min(losses, key=losses.__getitem__)
            kept.remove(gone)
            say(f"layer {gone} goes: loss {losses[gone]:.4f} without it")
    finally:
        holder.layer = layers
    return kept


@torch.no_grad()
def mean_loss(learner: Learner, batches: Batches) -> float:
    """Over all rows."""
    learner.new_evaluation()
    losses = [(float(learner(task, rows)), len(rows)) for task, rows in batches]
    return sum(loss * n for loss, n in losses) / sum(n for _, n in losses)


def best_units(importance: Tensor, n_kept: int) -> Tensor:
    """Indices of the most important units, ascending."""
    return importance.topk(n_kept).indices.sort().values


def _taylor(layer: nn.Linear) -> Tensor:
    """For each input of a layer what the loss changes by without it, to first order."""
    gradient = layer.weight.grad
    if gradient is None:  # no row of this batch came this way
        return torch.zeros(layer.in_features)
    return (layer.weight.detach() * gradient).sum(0).cpu()
