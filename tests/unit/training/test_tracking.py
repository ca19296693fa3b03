"""What a run tells: lines for programs, and the same for TensorBoard."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from instructrec_deploy.core.errors import MissingExtra
from instructrec_training.recipe import Recipe
from instructrec_training.run import RunReport
from tests.tiny_runs import events_of, losses_of

MakeRecipe = Callable[..., Recipe]
Run = Callable[..., RunReport]


def test_tensorboard_gets_what_the_log_gets(make_recipe: MakeRecipe, run: Run) -> None:
    report = run(make_recipe(epochs=2, tensorboard=True, log_steps=1))
    events = EventAccumulator(str(report.folder / "tensorboard")).Reload()
    assert [e.value for e in events.Scalars("epoch/loss")] == pytest.approx(
        losses_of(report.folder)
    )
    steps = events_of(report.folder, "step")
    assert [step["step"] for step in steps] == [1, 2, 3, 4, 5, 6]  # 24 rows in eights, twice
    shown = events.Scalars("step/learning_rate")
    assert [e.step for e in shown] == [1, 2, 3, 4, 5, 6]
    assert [e.value for e in shown] == pytest.approx([step["learning_rate"] for step in steps])


def test_steps_are_told_as_often_as_the_recipe_says(make_recipe: MakeRecipe, run: Run) -> None:
    report = run(make_recipe(epochs=2, log_steps=4), "some")
    assert [step["step"] for step in events_of(report.folder, "step")] == [4]
    silent = run(make_recipe(epochs=2, log_steps=0), "none")
    assert events_of(silent.folder, "step") == []
    assert not (silent.folder / "tensorboard").exists()


def test_tensorboard_that_is_not_installed_is_named(
    make_recipe: MakeRecipe, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(MissingExtra) as caught:
        run(make_recipe(tensorboard=True))
    assert "[tensorboard]" in caught.value.hint


def test_adapters_without_peft_are_named(
    make_recipe: MakeRecipe, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(MissingExtra) as caught:
        run(make_recipe(lora_rank=2))
    assert "[lora]" in caught.value.hint
