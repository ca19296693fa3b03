"""Shares of an epoch, and weights that follow the losses."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from instructrec_deploy.core.manifest import TaskSpec
from instructrec_deploy.text.tokenizer import TextTokenizer
from instructrec_training.data import TaskData, epoch_batches, load_task_data
from instructrec_training.mixture import EXPONENTS, AdaptiveWeights, Mixture, row_factors
from instructrec_training.recipe import Recipe
from instructrec_training.rows import Row
from instructrec_training.run import RunReport
from tests.tiny_runs import LEARNS, events_of, with_all_shapes

MakeRecipe = Callable[..., Recipe]
Run = Callable[..., RunReport]


def task_of(name: str, n: int) -> TaskData:
    rows = tuple(Row([1] * (1 + i % 5), 0, f"{name}{i}") for i in range(n))
    return TaskData(name, TaskSpec(labels=("a",)), rows, (), (), 1.0)


@pytest.mark.parametrize(
    ("mixture", "shown"),
    [("proportional", [400, 100]), ("sqrt", [333, 167]), ("equal", [250, 250])],
)
def test_a_mixture_shares_the_epoch(mixture: Mixture, shown: list[int]) -> None:
    tasks = [task_of("a", 400), task_of("b", 100)]
    batches = epoch_batches(tasks, 8, seed=1, epoch=0, mixture=mixture)
    found = [sum(len(rows) for number, rows in batches if number == task) for task in (0, 1)]
    assert found == shown


@given(
    st.lists(st.tuples(st.integers(1, 500), st.floats(0.1, 4.0)), min_size=1, max_size=5),
    st.sampled_from(sorted(EXPONENTS)),
)
def test_every_mixture_shows_as_many_rows(pairs: list[tuple[int, float]], mixture: Mixture) -> None:
    sizes, weights = [n for n, _ in pairs], [w for _, w in pairs]
    factors = row_factors(sizes, weights, mixture)
    shown = sum(f * n for f, n in zip(factors, sizes, strict=True))
    assert shown == pytest.approx(sum(w * n for n, w in pairs))


def test_a_limit_takes_the_first_batches_and_each_epoch_has_others() -> None:
    tasks = [task_of("a", 200)]
    whole = epoch_batches(tasks, 8, seed=1, epoch=0)
    assert epoch_batches(tasks, 8, seed=1, epoch=0, limit=3) == whole[:3]
    assert epoch_batches(tasks, 8, seed=1, epoch=1, limit=3) != whole[:3]


def epoch(weights: AdaptiveWeights, *losses: float) -> None:
    for task, loss in enumerate(losses):
        weights.add(task, loss)
    weights.close_epoch(weights.seen)


def test_a_task_whose_loss_stands_still_gains_weight() -> None:
    weights = AdaptiveWeights(2)
    epoch(weights, 2.0, 2.0)
    assert weights.weights == [1.0, 1.0]
    epoch(weights, 1.0, 2.0)
    powers = [math.exp(0.5 / 2), math.exp(1.0 / 2)]  # the formula of the source, T = 2
    assert weights.weights == pytest.approx([2 * p / sum(powers) for p in powers])


def test_adaptive_weights_come_back_from_their_state() -> None:
    one, other = AdaptiveWeights(2), AdaptiveWeights(2)
    epoch(one, 3.0, 1.0)
    one.add(0, 1.0)
    other.set_state(one.state())
    for weights in (one, other):
        weights.add(1, 0.5)
        weights.close_epoch(weights.seen)
    assert one.weights == other.weights != [1.0, 1.0]


def test_a_task_without_a_batch_in_an_epoch_leaves_the_weights() -> None:
    weights = AdaptiveWeights(2)
    epoch(weights, 1.0, 1.0)
    weights.add(0, 0.1)
    weights.close_epoch(weights.seen)
    assert weights.weights == [1.0, 1.0]


@pytest.mark.parametrize("weights", [(1.0, 2.0), (0.5, 3.0), (2.0, 2.0)])
def test_each_file_of_a_task_has_its_own_weight(
    weights: tuple[float, float], make_recipe: MakeRecipe, tiny_base: Path, tmp_path: Path
) -> None:
    content = make_recipe().model_dump()
    parts = []
    for name, n, weight in (("en", 40, weights[0]), ("zh", 20, weights[1])):
        rows = [{"text": f"{name} {i}", "target": "a", "split": "train"} for i in range(n)]
        content_of_file = "\n".join(json.dumps(row) for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(content_of_file, encoding="utf-8")
        path = {"path": f"{name}.jsonl", "weight": weight, "validation_split": "val"}
        parts.append(content["data"][0] | path)
    recipe = Recipe.model_validate(content | {"data": parts})
    tokenizer = TextTokenizer(tiny_base / "tokenizer.json", max_tokens=64)
    tasks = load_task_data(recipe, tmp_path, tokenizer)
    seen = [row.text[:2] for _, rows in epoch_batches(tasks, 8, seed=1, epoch=0) for row in rows]
    assert seen.count("en") == 40 * weights[0]
    assert seen.count("zh") == 20 * weights[1]


def test_tasks_of_every_shape_share_a_run_and_their_weights_follow_the_losses(
    make_recipe: MakeRecipe, run: Run, data_root: Path
) -> None:
    recipe = with_all_shapes(make_recipe(), data_root, **LEARNS, adaptive_weights=True)
    epochs = events_of(run(recipe).folder, "epoch")
    assert epochs[0]["weights"] == {"intent": 1.0, "topics": 1.0, "spans": 1.0}
    last = epochs[-1]["weights"]
    assert sum(last.values()) == pytest.approx(3.0, abs=1e-3)
    assert len(set(last.values())) == 3
    assert epochs[-1]["loss"] < 0.8 * epochs[0]["loss"]


@pytest.mark.parametrize("key", [{"adaptive_weights": True}, {"mixture": "equal"}])
def test_keys_of_a_mixture_are_refused_with_one_task(
    key: dict[str, object], make_recipe: MakeRecipe
) -> None:
    with pytest.raises(ValidationError, match="has no effect with one task"):
        make_recipe(**key)
