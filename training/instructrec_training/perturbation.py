"""Adversarial training: a second pass on word embeddings moved where the loss grows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class EmbeddingPerturbation:
    """Fast gradient method on the output of the word embeddings.

    In the first pass it keeps what the embeddings gave; after its backward pass, each sequence's
    embeddings move by epsilon * g / |g|, g being the gradient over all of it. The gradients
    of both passes add up. It needs no gradient of the embedding table, so it works with frozen
    embeddings, too.

    Source: arXiv:1605.07725 (adversarial training of text classifiers), equation 5.
    """

    def __init__(self, embeddings: nn.Module, epsilon: float) -> None:
        self._embeddings = embeddings
        self._epsilon = epsilon
        self._seen: list[tuple[Tensor, Tensor]] = []  # ids, output with its gradient

    @contextmanager
    def watching(self) -> Iterator[None]:
        """The first pass, its backward pass included."""
        self._seen = []
        handle = self._embeddings.register_forward_hook(self._keep)
        try:
            yield
        finally:
            handle.remove()

    @contextmanager
    def moved(self) -> Iterator[None]:
        """The second pass: sequences of the first come with moved embeddings."""
        handle = self._embeddings.register_forward_hook(self._move)
        try:
            yield
        finally:
            handle.remove()
            self._seen = []

    def _keep(self, _module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        if not torch.is_grad_enabled():
            return None
        kept = output if output.requires_grad else output.detach().requires_grad_(True)
        kept.retain_grad()
        self._seen.append((inputs[0], kept))
        return kept

    def _move(self, _module: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor | None:
        for ids, kept in self._seen:
            if kept.grad is not None and torch.equal(ids, inputs[0]):
                return output + perturbation(kept.grad, self._epsilon).to(output.dtype)
        return None


def perturbation(gradient: Tensor, epsilon: float) -> Tensor:
    """[B, T, H] gradient -> the same shape, epsilon long for each of B texts; 0 where it is 0."""
    length = gradient.flatten(1).norm(dim=1).clamp_min(1e-12)
    moved: Tensor = epsilon * gradient / length[:, None, None]
    return moved
