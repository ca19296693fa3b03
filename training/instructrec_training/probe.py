"""Logistic regression on frozen vectors: the first rung, and a good start for tuning.

Source: linear probing then fine-tuning, arXiv:2202.10054 (Kumar et al. 2022): a head that already
fits keeps the first tuning steps from bending the pretrained features.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from instructrec_training.calibrate import any_loss

MAX_ITERATIONS = 200


def fit_probe(
    features: Tensor,
    targets: Tensor,
    *,
    n_labels: int,
    inverse_l2: float,
    offsets: Tensor | None = None,
    has_bias: bool = True,
) -> tuple[Tensor, Tensor]:
    """Fit a linear classifier by L-BFGS, on features brought to a standard deviation of 1.

    Args:
        features: [N, H] float32.
        targets: [N] int64 in [0, n_labels); or [N, L], 1 where a label is right, for a regression
            of every label by itself.
        n_labels: L.
        inverse_l2: scikit-learn's `C`: the penalty on the mean loss is |W|^2 / (2 C N).
        offsets: [N, L] fixed logits to which the classifier's are added (the cosine scores of an
            instruction encoder); None for zero.
        has_bias: False where the model has no place for one; the bias is zero then.

    Returns:
        weight [L, H] and bias [L], for the features as they came.
    """
    spread = float(features.std()) or 1.0
    scaled = features / spread
    weight = torch.zeros(n_labels, features.shape[1], requires_grad=True)
    bias = torch.zeros(n_labels, requires_grad=has_bias)
    penalty = 1.0 / (2.0 * inverse_l2 * len(features))
    optimizer = torch.optim.LBFGS(
        [weight, bias] if has_bias else [weight],
        max_iter=MAX_ITERATIONS,
        line_search_fn="strong_wolfe",
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        logits = scaled @ weight.T + bias
        if offsets is not None:
            logits = logits + offsets
        if targets.ndim == 1:
            loss = functional.cross_entropy(logits, targets)
        else:
            loss = any_loss(logits, targets)
        loss = loss + penalty * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    optimizer.step(closure)  # type: ignore[no-untyped-call]
    return weight.detach() / spread, bias.detach()
