"""Optimizers, schedules, the length of an epoch and the weights a run leaves."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from instructrec_deploy.core.errors import ConfigError, TrainingDiverged
from instructrec_training.learners import Learner
from instructrec_training.optimizers import parameter_groups, pull_to_start
from instructrec_training.recipe import Recipe, Schedule, TrainingPart
from instructrec_training.run import RunReport
from tests.tiny_runs import KINDS, LEARNS, events_of, losses_of, weights_of, with_all_shapes

MakeRecipe = Callable[..., Recipe]
Run = Callable[..., RunReport]
OPTIMIZERS: dict[str, Any] = {
    "adamw": partial(torch.optim.AdamW, weight_decay=0.0),
    "sgd": torch.optim.SGD,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "cosine_with_min_lr": {"min_lr": 1e-6},
    "cosine_warmup_with_min_lr": {"min_lr": 1e-6},
    "warmup_stable_decay": {"num_decay_steps": 2},
}


@pytest.mark.parametrize("optimizer", ["sgd", "adafactor"])
def test_each_optimizer_lowers_the_loss(optimizer: str, make_recipe: MakeRecipe, run: Run) -> None:
    rate = 3e-2 if optimizer == "sgd" else 3e-3
    recipe = make_recipe(
        epochs=8, patience=8, optimizer=optimizer, learning_rate=rate, head_learning_rate=rate
    )
    losses = losses_of(run(recipe).folder)
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd", "adafactor"])
def test_each_optimizer_trains_tasks_of_every_shape(
    optimizer: str, make_recipe: MakeRecipe, run: Run, data_root: Path
) -> None:
    rate = 3e-2 if optimizer == "sgd" else 5e-3
    settings = {**LEARNS, "learning_rate": rate, "head_learning_rate": rate}
    recipe = with_all_shapes(make_recipe(), data_root, optimizer=optimizer, **settings)
    losses = losses_of(run(recipe).folder)
    assert losses[-1] < 0.8 * losses[0]


def test_a_pull_to_the_base_holds_the_encoder_near_it_and_nothing_else(
    make_recipe: MakeRecipe, run: Run
) -> None:
    start = weights_of(run(make_recipe(epochs=0), "start").folder)
    moved = {}
    for pull in (0.0, 300.0):
        recipe = make_recipe(epochs=3, learning_rate=3e-3, pull_to_base=pull)
        found = weights_of(run(recipe, str(pull)).folder)
        moved[pull] = {name: float((found[name] - start[name]).norm()) for name in start}
    encoder = [name for name, way in moved[0.0].items() if name.startswith("encoder.") and way]
    assert encoder
    assert all(moved[300.0][name] < 0.8 * moved[0.0][name] for name in encoder)
    assert moved[300.0]["fusion.output.weight"] > 0.8 * moved[0.0]["fusion.output.weight"]


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_the_pull_takes_the_rate_of_each_step(optimizer: str) -> None:
    near, far = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    made = OPTIMIZERS[optimizer]([{"params": [near], "lr": 0.1}, {"params": [far], "lr": 0.1}])
    pull_to_start(made, [near], 5.0)
    made.load_state_dict(made.state_dict())  # as a resumed run does
    made.param_groups[0]["lr"] = made.param_groups[1]["lr"] = 0.05
    for p in (near, far):
        p.grad = torch.ones(2)
    made.step()
    step = 1.0 - far.detach()
    assert torch.allclose(near.detach(), 1.0 - 0.75 * step)


@pytest.mark.parametrize("schedule", get_args(Schedule))
def test_every_schedule_of_transformers_runs(
    schedule: str, make_recipe: MakeRecipe, run: Run
) -> None:
    recipe = make_recipe(
        epochs=1, schedule=schedule, schedule_options=OPTIONS.get(schedule, {}), steps_per_epoch=3
    )
    assert len(losses_of(run(recipe).folder)) == 1


def test_a_schedule_that_lacks_an_option_says_so(make_recipe: MakeRecipe, run: Run) -> None:
    with pytest.raises(ConfigError, match="cosine_with_min_lr"):
        run(make_recipe(schedule="cosine_with_min_lr"))


def test_steps_per_epoch_caps_an_epoch(make_recipe: MakeRecipe, run: Run) -> None:
    report = run(make_recipe(epochs=2, steps_per_epoch=2))
    state = torch.load(report.folder / "state/resume.pt", weights_only=True)
    assert state["progress"]["step"] == 4


def test_where_time_is_short_the_rates_have_fallen_when_it_is_up(
    make_recipe: MakeRecipe,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(
        "instructrec_training.tracking.Tracker.say", lambda _, text: said.append(text)
    )
    ticks = count(0.0, 2.0)  # seconds from one look at the clock to the next
    clock = SimpleNamespace(monotonic=lambda: next(ticks))
    monkeypatch.setattr("instructrec_training.loop.time", clock)
    recipe = make_recipe(epochs=40, batch_size=4, patience=40, max_minutes=1, log_steps=1)
    steps = events_of(run(recipe).folder, "step")
    rates = [step["head_learning_rate"] for step in steps]
    assert 5 <= len(steps) < 40  # of 240
    assert any(f"out of time at step {len(steps)} of 240" in words for words in said)
    assert max(rates) > 0.5 * recipe.training.head_learning_rate
    assert rates[-1] < 0.2 * max(rates)
    assert all(later < earlier for earlier, later in pairwise(rates[rates.index(max(rates)) :]))


def test_a_limit_of_time_that_is_not_met_changes_nothing(make_recipe: MakeRecipe, run: Run) -> None:
    free, limited = (
        weights_of(run(make_recipe(max_minutes=m), f"run-{m}").folder) for m in (0, 600)
    )
    assert all(torch.equal(weights, limited[name]) for name, weights in free.items())


def test_accumulated_batches_are_the_step_of_one_large_batch(
    make_recipe: MakeRecipe, run: Run
) -> None:
    found = []
    for name, size, n in (("whole", 24, 1), ("parts", 12, 2)):
        settings = {"batch_size": size, "accumulation_steps": n, "optimizer": "sgd"}
        recipe = make_recipe(KINDS[1], epochs=1, **settings)
        model = recipe.model.model_copy(update={"dropout": 0.0})
        report = run(recipe.model_copy(update={"model": model}), name)
        found.append(weights_of(report.folder))
    whole, parts = found
    for name, value in whole.items():
        assert torch.allclose(value, parts[name], atol=1e-6), name  # sums in another order


def test_a_small_max_grad_norm_bounds_the_step(make_recipe: MakeRecipe, run: Run) -> None:
    settings = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "warmup_share": 0.0}
    rates = {"learning_rate": 1.0, "head_learning_rate": 1.0, "schedule": "constant"}
    base = weights_of(run(make_recipe(epochs=0), "base").folder)
    recipe = make_recipe(epochs=1, steps_per_epoch=1, max_grad_norm=1e-2, **settings, **rates)
    moved = weights_of(run(recipe, "one").folder)
    length = sum(float((moved[k] - base[k]).square().sum()) for k in base) ** 0.5
    assert length == pytest.approx(1e-2, rel=1e-2)  # the gradient is longer, the step is not


class Parts(Learner):
    """A pretrained matrix, a layer of a reader, a bias of a head."""

    def __init__(self) -> None:
        super().__init__()
        self.pretrained = nn.Parameter(torch.zeros(2, 2))
        self.layer = nn.Parameter(torch.zeros(2, 2))
        self.bias = nn.Parameter(torch.zeros(2))

    def own_parameters(self) -> list[nn.Parameter]:
        return [self.bias]

    def reader_parameters(self) -> list[nn.Parameter]:
        return [self.layer]


@pytest.mark.parametrize(("reader_rate", "expected"), [(0.0, 1e-4), (3e-4, 3e-4)])
def test_each_part_has_its_rate(reader_rate: float, expected: float) -> None:
    parts = Parts()
    settings = TrainingPart(
        learning_rate=1e-4, head_learning_rate=1e-2, reader_learning_rate=reader_rate
    )
    found = {
        id(p): (group["lr"], group["weight_decay"])
        for group in parameter_groups(parts, settings)
        for p in group["params"]
    }
    assert found == {
        id(parts.pretrained): (1e-4, 0.01),
        id(parts.layer): (expected, 0.01),
        id(parts.bias): (1e-2, 0.0),
    }


def test_a_run_may_keep_its_last_weights(make_recipe: MakeRecipe, run: Run) -> None:
    settings = {"epochs": 3, "patience": 3, "learning_rate": 1e-2}
    last = run(make_recipe(**settings, keep="last"))
    state = torch.load(last.folder / "state/resume.pt", weights_only=True)["learner"]
    kept = {k: v for k, v in weights_of(last.folder).items() if not k.startswith("label_vectors.")}
    for name, value in kept.items():
        assert torch.equal(value, state[f"model.{name}"]), name
    assert not (last.folder / "state/best.pt").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_still_learns_in_bf16(kind: str, make_recipe: MakeRecipe, run: Run) -> None:
    losses = losses_of(run(make_recipe(kind, "mean", **LEARNS, precision="bf16")).folder)
    assert losses[-1] < 0.8 * losses[0]


def test_bf16_computes_otherwise_than_fp32(make_recipe: MakeRecipe, run: Run) -> None:
    (one,) = losses_of(run(make_recipe(epochs=1, precision="fp32"), "fp32").folder)
    (other,) = losses_of(run(make_recipe(epochs=1, precision="bf16"), "bf16").folder)
    assert one != other
    assert other == pytest.approx(one, rel=0.05)  # 8 bits of mantissa


def test_a_loss_that_is_no_number_stops_the_run(make_recipe: MakeRecipe, run: Run) -> None:
    recipe = make_recipe(
        KINDS[1], learning_rate=1e30, head_learning_rate=1e30, warmup_share=0.0, max_grad_norm=1e30
    )
    with pytest.raises(TrainingDiverged) as caught:
        run(recipe)
    assert "learning_rate" in caught.value.hint


def test_the_reports_validation_figure_is_that_of_the_kept_epoch(
    make_recipe: MakeRecipe, run: Run
) -> None:
    report = run(make_recipe(epochs=3, patience=3, learning_rate=1e-2))
    kept = max(event["accuracy"] for event in events_of(report.folder, "epoch"))
    assert report.validation == pytest.approx(kept)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"momentum": 0.5}, 'momentum has no effect without optimizer = "sgd"'),
        ({"optimizer": "sgd", "betas": (0.5, 0.9)}, "betas has no effect"),
        ({"schedule": "constant", "schedule_options": {"a": 1}}, "schedule_options has no effect"),
        ({"probe_inverse_l2": 2.0}, "probe_inverse_l2 has no effect without probe = true"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(
    settings: dict[str, Any], words: str, make_recipe: MakeRecipe
) -> None:
    with pytest.raises(ValidationError) as caught:
        make_recipe(**settings)
    assert words in str(caught.value)


def test_a_recipe_that_was_written_out_whole_is_read_back(make_recipe: MakeRecipe) -> None:
    recipe = make_recipe(optimizer="sgd", schedule="inverse_sqrt")
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
