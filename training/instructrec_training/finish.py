"""What becomes of tuned weights: adapters merged in, the base averaged in, labels fitted again."""

from __future__ import annotations

from instructrec_training.averaging import BaseBlend
from instructrec_training.learners import Learner
from instructrec_training.loop import Loop
from instructrec_training.lora import add_adapters
from instructrec_training.recipe import TrainingPart


class Finish:
    """Readies a learner before its first step, and its weights after the last one."""

    def __init__(self, learner: Learner, settings: TrainingPart) -> None:
        self._share = settings.average_with_base
        self._fits_again = settings.probe_again
        self._blend = BaseBlend(learner.encoder) if self._share else None
        self._adapters = add_adapters(learner.encoder, settings) if settings.lora_rank else None

    def __call__(self, loop: Loop) -> float:
        """Merge, average, fit again; the base's share in the encoder's weights now."""
        if self._adapters is not None:
            self._adapters.merge()
        share = self._average(loop)
        if self._fits_again:
            loop.probe_again()
        return share

    def _average(self, loop: Loop) -> float:
        if self._blend is None:
            return 0.0
        share = self._blend.choose(loop.validation_score) if self._share == "auto" else self._share
        assert not isinstance(share, str)
        if self._share != "auto":
            self._blend.blend(share)
        loop.tracker.record("average", base=share)
        loop.tracker.say(f"encoder: {1 - share:.0%} tuned, {share:.0%} base weights")
        return share
