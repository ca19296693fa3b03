"""Averaged weights, adapters and moved embeddings: by formula, and in whole runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from instructrec_deploy.core.errors import ConfigError
from instructrec_deploy.models.checkpoint import load_checkpoint
from instructrec_training.averaging import BaseBlend, MovingAverage
from instructrec_training.perturbation import EmbeddingPerturbation, perturbation
from instructrec_training.recipe import Recipe
from instructrec_training.run import RunReport
from tests.tiny_runs import KINDS, events_of, learning, losses_of, weights_of

MakeRecipe = Callable[..., Recipe]
Run = Callable[..., RunReport]


def test_a_perturbation_is_epsilon_long_for_each_text() -> None:
    gradient = torch.randn(3, 5, 8)
    gradient[2] = 0.0
    lengths = perturbation(gradient, 0.3).flatten(1).norm(dim=1)
    assert lengths.tolist() == pytest.approx([0.3, 0.3, 0.0])


@pytest.mark.parametrize("is_frozen", [False, True])
def test_moved_embeddings_have_a_greater_loss(is_frozen: bool) -> None:
    torch.manual_seed(0)
    words, layer = nn.Embedding(10, 8), nn.Linear(8, 1)
    words.weight.requires_grad_(not is_frozen)
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    moving = EmbeddingPerturbation(words, 0.01)

    def loss() -> torch.Tensor:
        return layer(words(ids)).square().mean()

    with moving.watching():
        plain = loss()
        plain.backward()
    before = words.weight.detach().clone()
    with moving.moved():
        assert loss() > plain
    assert loss() == plain  # the hook is gone
    assert torch.equal(words.weight, before)


def test_the_moving_average_is_the_weighted_sum_of_the_steps() -> None:
    module = nn.Linear(1, 1, bias=False)
    mean = MovingAverage(module, 0.5)
    expected = module.weight.item()
    for n in range(1, 20):
        with torch.no_grad():
            module.weight.fill_(float(n))
        mean.update()
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * n
    with mean.applied():
        assert module.weight.item() == pytest.approx(expected, rel=1e-5)
    assert module.weight.item() == 19.0


def test_a_blend_lies_between_base_and_tuned() -> None:
    encoder = nn.Linear(2, 2)
    blend = BaseBlend(encoder)
    base = encoder.weight.detach().clone()
    with torch.no_grad():
        encoder.weight.add_(1.0)
    blend.blend(0.3)
    assert torch.allclose(encoder.weight, base + 0.7)


def test_the_share_with_the_best_score_is_chosen_and_ties_go_to_the_smaller() -> None:
    encoder = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        encoder.weight.fill_(0.0)
    blend = BaseBlend(encoder)
    with torch.no_grad():
        encoder.weight.fill_(1.0)
    assert blend.choose(lambda: -abs(encoder.weight.item() - 0.8)) == 0.2
    assert encoder.weight.item() == pytest.approx(0.8)
    with torch.no_grad():
        encoder.weight.fill_(1.0)
    assert blend.choose(lambda: 1.0) == 0.0
    assert encoder.weight.item() == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_averaging_moves_the_encoder_towards_the_base(
    kind: str, make_recipe: MakeRecipe, run: Run
) -> None:
    base = weights_of(run(make_recipe(kind, epochs=0), "base").folder)
    tuned = weights_of(run(make_recipe(kind, epochs=1), "tuned").folder)
    report = run(make_recipe(kind, epochs=1, average_with_base=0.3), "mean")
    mean = weights_of(report.folder)
    (name,) = [n for n in base if n.endswith("layer.1.attention.self.query.weight")]
    assert torch.allclose(mean[name], 0.7 * tuned[name] + 0.3 * base[name], atol=1e-6)
    assert report.base_share == 0.3


def test_the_share_of_the_base_may_be_chosen_on_validation_rows(
    make_recipe: MakeRecipe, run: Run
) -> None:
    report = run(make_recipe(epochs=2, average_with_base="auto"))
    kept = max(event["accuracy"] for event in events_of(report.folder, "epoch"))
    assert report.validation >= kept  # a share of 0 is among those tried


@pytest.mark.parametrize(("dropout", "moves"), [(0.0, True), (1.0, False)])
def test_a_labels_own_vector_may_be_left_out_of_steps(
    dropout: float, moves: bool, make_recipe: MakeRecipe, run: Run
) -> None:
    report = run(make_recipe(epochs=1, label_vector_dropout=dropout))
    learned = load_checkpoint(report.folder / "checkpoint").label_vectors
    assert learned
    assert any(bool(vectors.any()) for vectors in learned.values()) is moves


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pooling", ["native", "mean"])
def test_adapters_are_merged_into_a_plain_checkpoint(
    kind: str, pooling: str, make_recipe: MakeRecipe, run: Run
) -> None:
    base = weights_of(run(make_recipe(kind, pooling, epochs=0), "base").folder)
    settings = {"epochs": 6, "patience": 6, "head_learning_rate": 1e-2}
    report = run(make_recipe(kind, pooling, lora_rank=4, **settings), "lora")
    found = weights_of(report.folder)
    assert found.keys() == base.keys()
    moved = {n for n in base if "encoder.layer" in n and not torch.equal(base[n], found[n])}
    expected = {f"{part}.weight" for part in ("query", "key", "value")}
    assert {n.partition(".self.")[2] for n in moved} == expected
    losses = losses_of(report.folder)
    assert losses[-1] < losses[0]


def test_adapters_for_layers_that_are_not_there_are_refused(
    make_recipe: MakeRecipe, run: Run
) -> None:
    with pytest.raises(ConfigError, match="q_proj") as caught:
        run(make_recipe(lora_rank=2, lora_targets=("q_proj",)))
    assert "query" in caught.value.hint


@pytest.mark.parametrize(
    "extra",
    [
        {"adversarial_epsilon": 0.05},
        {"adversarial_epsilon": 0.05, "freeze_embeddings": True, "candidate_refresh_steps": 3},
        {"lora_rank": 4, "learning_rate": 1e-2},
        {"ema_decay": 0.5},
        {"label_vector_dropout": 0.5},
    ],
    ids=lambda extra: ",".join(extra),
)
@pytest.mark.parametrize("kind", [*KINDS, "all shapes"])
def test_a_run_still_learns_with(
    extra: dict[str, Any], kind: str, make_recipe: MakeRecipe, run: Run, data_root: Path
) -> None:
    losses = losses_of(run(learning(make_recipe, data_root, kind, extra)).folder)
    assert losses[-1] < 0.8 * losses[0]


def test_moved_embeddings_change_what_is_learned(make_recipe: MakeRecipe, run: Run) -> None:
    plain = weights_of(run(make_recipe(epochs=1), "plain").folder)
    moved = weights_of(run(make_recipe(epochs=1, adversarial_epsilon=1e-9), "tiny").folder)
    far = weights_of(run(make_recipe(epochs=1, adversarial_epsilon=1.0), "far").folder)
    name = "encoder.embeddings.word_embeddings.weight"
    assert not torch.equal(moved[name], far[name])
    assert not torch.equal(plain[name], far[name])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lora_alpha": 4}, "lora_alpha has no effect without lora_rank"),
        ({"lora_rank": 4, "freeze_layers": 1}, "freezes the whole encoder"),
        ({"average_with_base": 1.5}, "average_with_base"),
        ({"average_with_base": "half"}, "average_with_base"),
        ({"ema_decay": 1.0}, "ema_decay"),
    ],
)
def test_keys_of_weights_that_do_not_fit_are_refused(
    settings: dict[str, Any], words: str, make_recipe: MakeRecipe
) -> None:
    with pytest.raises(ValidationError) as caught:
        make_recipe(**settings)
    assert words in str(caught.value)
