"""Weights that are means of weights: a moving average of the steps, a blend with the base."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

SHARES = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5)  # that "auto" tries; ties go to the smaller


class MovingAverage:
    """An exponential moving average of all weights that may move.

    The decay of step n is min(decay, (1 + n) / (10 + n)), so that a short run does not end at
    its start.

    Source: arXiv:1412.6980 section 7.2 (averaging); the ramp is TensorFlow's
    ExponentialMovingAverage.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self._moving = {n: p for n, p in module.named_parameters() if p.requires_grad}
        self._decay = decay
        self._n = 0
        self._mean = {name: p.detach().clone() for name, p in self._moving.items()}

    def start(self) -> None:
        """Begin at the weights as they are now."""
        for name, p in self._moving.items():
            self._mean[name].copy_(p.detach())

    def update(self) -> None:
        """An optimizer step was made."""
        self._n += 1
        decay = min(self._decay, (1 + self._n) / (10 + self._n))
        for name, p in self._moving.items():
            self._mean[name].lerp_(p.detach(), 1.0 - decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The module has the mean's weights inside, its own again afterwards."""
        own = {name: p.detach().clone() for name, p in self._moving.items()}
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, p in self._moving.items():
                    p.copy_(own[name])

    @torch.no_grad()
    def apply(self) -> None:
        """Give the module the mean's weights for good."""
        for name, p in self._moving.items():
            p.copy_(self._mean[name])

    def state(self) -> dict[str, object]:
        """Tensors and a number for the resume point."""
        return {"n": self._n, "mean": {name: mean.cpu() for name, mean in self._mean.items()}}

    def set_state(self, state: dict[str, object]) -> None:
        """Put back what `state` gave."""
        self._n = int(state["n"])  # type: ignore[call-overload]
        for name, mean in state["mean"].items():  # type: ignore[attr-defined]
            self._mean[name].copy_(mean)


class BaseBlend:
    """weights = (1 - share) * tuned + share * base, over the pretrained encoder.

    Source: arXiv:2109.01903 (WiSE-FT). New weights (fusion, label vectors, classifier) have no
    pretrained counterpart and stay as tuned.
    """

    def __init__(self, encoder: nn.Module) -> None:
        """Keep the base: call it before the first step, and before adapters are put in."""
        self._encoder = encoder
        self._base = _copy_of(encoder)

    @torch.no_grad()
    def blend(self, share: float, tuned: dict[str, Tensor] | None = None) -> None:
        """Blend `tuned` (None: the weights as they are) with the base."""
        source = _copy_of(self._encoder) if tuned is None else tuned
        for name, p in self._encoder.named_parameters():
            base = self._base[name].to(p.device)
            p.copy_(torch.lerp(source[name].to(p.device), base, share))

    def choose(self, score: Callable[[], float]) -> float:
        """The share with the best score (of validation rows); the encoder is left with it."""
        tuned = _copy_of(self._encoder)
        best_share, best_score = 0.0, float("-inf")
        for share in SHARES:
            self.blend(share, tuned)
            if (found := score()) > best_score:
                best_share, best_score = share, found
        self.blend(best_share, tuned)
        return best_share


def _copy_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().cpu().clone() for name, p in module.named_parameters()}
