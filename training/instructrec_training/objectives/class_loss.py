"""Terms of a loss over labels beside plain cross-entropy.

Shapes: B rows, L labels, H width of a text vector.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def focal_loss(logits: Tensor, targets: Tensor, *, gamma: float, smoothing: float = 0.0) -> Tensor:
    """Cross-entropy in which a row that is already sure counts less; gamma 0 is cross-entropy.

    Args:
        logits: [B, L].
        targets: [B], positions of the right labels; or [B, L], 1 where a label is right, for a
            decision on every label by itself (summed over labels, averaged over rows).
        gamma: a loss is scaled by (1 - p) ^ gamma, p being the probability of what is right.
        smoothing: share of the target spread over all labels; of single labels only.

    Source: arXiv:1708.02002, equation 4.
    """
    if targets.ndim == 2:
        wanted = targets.to(logits.dtype)
        losses = functional.binary_cross_entropy_with_logits(logits, wanted, reduction="none")
        return (_doubt(torch.exp(-losses), gamma) * losses).sum() / len(logits)
    losses = functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
    right = torch.softmax(logits, dim=-1).gather(1, targets[:, None])[:, 0]
    return (_doubt(right, gamma) * losses).mean()


def _doubt(right: Tensor, gamma: float) -> Tensor:
    """(1 - p) ^ gamma; 1e-6 keeps its gradient finite where p is 1 and gamma below 1."""
    if not gamma:
        return torch.ones_like(right)
    return (1.0 - right).clamp_min(1e-6) ** gamma


def distillation(logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of softened scores [B, L], mean over rows.

    Source: arXiv:1503.02531, section 2 (the factor keeps the gradients' size).
    """
    student = functional.log_softmax(logits / temperature, dim=-1)
    wanted = functional.log_softmax(teacher / temperature, dim=-1)
    kl = functional.kl_div(student, wanted, log_target=True, reduction="batchmean")
    return temperature**2 * kl


def contrast(vectors: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Supervised in-batch contrast of text vectors [B, H] by their labels [B].

    A row that is alone with its label in the batch is left out.

    Source: arXiv:2004.11362, equation 2 (L_out).
    """
    unit = functional.normalize(vectors, dim=-1)
    itself = torch.eye(len(unit), dtype=torch.bool, device=unit.device)
    scores = (unit @ unit.T / temperature).masked_fill(itself, -1e9)
    positive = (targets[:, None] == targets[None, :]) & ~itself
    n_positive = positive.sum(1)
    log_shares = functional.log_softmax(scores, dim=-1)
    losses = -(log_shares * positive).sum(1) / n_positive.clamp_min(1)
    return losses.sum() / (n_positive > 0).sum().clamp_min(1)
