"""Refit what reads a pruned layer's units, so that its sums are again those of the whole model.

Shapes: T tokens, K inputs of a product, H hidden size.

A layer adds the output of its attention, and then that of its feed-forward part, to what came in,
and normalizes the sum. With units gone the sums are off, and the error grows from layer to layer.
From the lowest layer up, the weights behind the units that are left are fitted by least squares:
from the pruned model's own activations to the whole model's sums, held near the old weights. It
takes seconds, where distillation takes minutes, and gives it a better start.

Source: the reconstruction step of layer-wise pruning (arXiv:1707.06168 for channels); ours aims at
the sum with the residual, so that it also takes back the errors of the layers below.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from instructrec_deploy.models.instruction_encoder import InstructionEncoder
from instructrec_deploy.models.shrink import LayerParts, linear, parts_of
from instructrec_training.data import TaskData
from instructrec_training.rows import pad

BATCH = 32  # texts at once
# Of the pull to the old weights, against the mean square of an activation. 0.1 was the same within
# noise on 300 validation rows of BANKING77.
STRENGTH = 0.01

Batches = Sequence[tuple[Tensor, Tensor]]  # ids and mask, [B, T]


def token_batches(rows: Sequence[Sequence[int]], pad_id: int) -> Batches:
    """Token ids of texts, those of like length together."""
    ordered = sorted(rows, key=len)
    return [pad(ordered[at : at + BATCH], pad_id) for at in range(0, len(ordered), BATCH)]


def rows_to_read(
    tasks: Sequence[TaskData], n_rows: int, tokenizer: Any, weight: float | None
) -> list[list[int]]:
    """Ids of training texts of every task; with a weight, those of the tasks' candidates, too."""
    share = max(1, n_rows // max(1, len(tasks)))
    found = [row.ids for task in tasks for row in task.train[:: max(1, len(task.train) // share)]]
    for task in tasks if weight is not None else ():
        words = [task.spec.descriptions.get(label, label) for label in task.spec.labels]
        asked = tokenizer.encode_candidates(task.spec.wording(), words, instruction_weight=weight)
        found += [candidate.ids for candidate in asked]
    return found


@torch.no_grad()
def refit(whole: nn.Module, pruned: nn.Module, kept: Sequence[int], batches: Batches) -> None:
    """Fit the pruned model's products, from the lowest layer up; it is changed in place.

    Args:
        whole: the model as it was, in evaluation mode.
        pruned: what is left of it, in evaluation mode.
        kept: numbers of the layers that are left.
        batches: texts that both read.
    """
    sources = [parts_of(_base(whole))[number] for number in kept]
    aims = _collect(whole, batches, [norm for part in sources for norm in _norms(part)])
    targets = parts_of(_base(pruned))
    places = [
        (linear(product), norm)
        for part in targets
        for product, norm in zip((part.output, part.outer), _norms(part), strict=True)
    ]
    for (product, norm), aim in zip(places, aims, strict=True):
        inputs, sums = _collect(pruned, batches, [product, norm])
        residual = sums - product(inputs)
        weight, bias = fit_product(inputs, aim - residual, product.weight)
        product.weight.copy_(weight)
        product.bias.copy_(bias)


def fit_product(inputs: Tensor, wanted: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Least squares with a pull to the old weights.

    Args:
        inputs: [T, K].
        wanted: [T, H].
        weight: [H, K], the old ones.

    Returns:
        weights [H, K] and bias [H].
    """
    x, y, old = inputs.double(), wanted.double(), weight.double()
    x_mean, y_mean = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    moments = x.T @ x
    pull = STRENGTH * moments.diagonal().mean().clamp(min=1e-12)
    change = torch.linalg.solve(moments + pull * torch.eye(len(moments)), x.T @ (y - x @ old.T))
    new = old + change.T
    return new.to(weight.dtype), (y_mean - new @ x_mean).to(weight.dtype)


def _collect(model: nn.Module, batches: Batches, modules: Sequence[Any]) -> list[Tensor]:
    """What goes into each of the modules, [T, ...] over the tokens of all batches."""
    seen: list[list[Tensor]] = [[] for _ in modules]
    is_token = torch.zeros(0)
    with ExitStack() as hooks:
        for found, module in zip(seen, modules, strict=True):

            def keep(_module: Any, inputs: Any, found: list[Tensor] = found) -> None:
                found.append(inputs[0][is_token].float())

            hooks.callback(module.register_forward_pre_hook(keep).remove)
        for ids, mask in batches:
            is_token = mask > 0
            if isinstance(model, InstructionEncoder):
                model.encode(ids, mask)
            else:
                model(input_ids=ids, attention_mask=mask)
    return [torch.cat(found) for found in seen]


def _norms(part: LayerParts) -> tuple[Any, Any]:
    return getattr(*part.attention_norm), getattr(*part.norm)


def _base(model: Any) -> Any:
    return model.encoder if isinstance(model, InstructionEncoder) else model.base_model
