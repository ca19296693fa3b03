"""A run that was killed and resumed ends with the weights of one that was not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from instructrec_training.loop import Loop
from instructrec_training.recipe import Recipe
from instructrec_training.run import train
from tests.tiny_runs import KINDS, weights_of, with_all_shapes

MakeRecipe = Callable[..., Recipe]
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    (KINDS[0], {}),
    (KINDS[1], {}),
    (KINDS[0], {"optimizer": "sgd", "learning_rate": 1e-2}),
    (KINDS[0], {"optimizer": "adafactor", "schedule": "cosine", "keep": "last"}),
    (KINDS[1], {"schedule": "reduce_lr_on_plateau", "schedule_options": {"patience": 0}}),
    (KINDS[1], {"steps_per_epoch": 3, "accumulation_steps": 2, "batch_size": 4}),
    (KINDS[0], {"ema_decay": 0.9, "keep": "last"}),
    (KINDS[1], {"ema_decay": 0.9}),
    (KINDS[0], {"lora_rank": 2, "lora_dropout": 0.2, "average_with_base": 0.3}),
    (KINDS[0], {"adversarial_epsilon": 0.5}),
    ("all shapes", {"adversarial_epsilon": 0.5, "lora_rank": 2, "ema_decay": 0.9}),
    (KINDS[1], {"contrastive_weight": 0.2, "focal_gamma": 1.0}),
    (KINDS[0], {"label_vector_dropout": 0.5}),
    (KINDS[0], {"pull_to_base": 50.0}),
    ("all shapes", {"steps_per_epoch": 4, "adaptive_weights": True, "mixture": "sqrt"}),
]


@pytest.mark.parametrize(
    ("kind", "extra"), SETTINGS, ids=lambda v: v if isinstance(v, str) else ",".join(v) or "plain"
)
def test_a_killed_run_resumes_to_the_same_weights(
    kind: str,
    extra: dict[str, Any],
    make_recipe: MakeRecipe,
    data_root: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = {"epochs": 3, "checkpoint_steps": 2, "candidate_refresh_steps": 3, **extra}
    if kind in KINDS:
        recipe = make_recipe(kind, **settings)
    else:
        recipe = with_all_shapes(make_recipe(), data_root, **settings)
    train(recipe, tmp_path / "whole", data_root=data_root, is_quiet=True)

    class Killed(BaseException):
        pass

    real = Loop._step

    def step(self: Loop, *args: object) -> float:
        if self.progress.step == 5:
            raise Killed
        return real(self, *args)  # type: ignore[arg-type]

    monkeypatch.setattr(Loop, "_step", step)
    with pytest.raises(Killed):
        train(recipe, tmp_path / "killed", data_root=data_root, is_quiet=True)
    monkeypatch.undo()
    train(recipe, tmp_path / "killed", data_root=data_root, resume=True, is_quiet=True)
    whole, resumed = weights_of(tmp_path / "whole"), weights_of(tmp_path / "killed")
    assert whole.keys() == resumed.keys()
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name
