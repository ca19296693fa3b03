"""The weights behind pruned units are fitted to the whole model's sums."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from instructrec_deploy.models.checkpoint import load_checkpoint
from instructrec_deploy.models.shrink import keep_heads, keep_neurons, linear, parts_of
from instructrec_training.data import load_task_data
from instructrec_training.pruning import Pruning, prune_run
from instructrec_training.recipe import Recipe
from instructrec_training.refit import fit_product, refit, rows_to_read, token_batches
from instructrec_training.run import RunReport

Make = Callable[..., Recipe]
Run = Callable[..., RunReport]


def test_a_product_is_found_again_and_kept_where_nothing_tells_of_it() -> None:
    torch.manual_seed(0)
    x, weight, bias = torch.randn(500, 6), torch.randn(3, 6), torch.randn(3)
    fitted, offset = fit_product(x, x @ weight.T + bias, weight + 0.1 * torch.randn(3, 6))
    # the pull of one hundredth leaves a hundredth of a tenth
    torch.testing.assert_close(fitted, weight, rtol=0.0, atol=5e-3)
    torch.testing.assert_close(offset, bias, rtol=0.0, atol=5e-3)
    blind = x.clone()
    blind[:, 5] = 0.0
    fitted, _ = fit_product(blind, blind @ weight.T, weight)
    torch.testing.assert_close(fitted[:, 5], weight[:, 5], rtol=0.0, atol=1e-6)


@pytest.mark.parametrize("kind", ["instruction-encoder", "sequence-classification"])
def test_a_refitted_model_is_nearer_to_the_whole_one(
    make_recipe: Make, run: Run, data_root: Path, tmp_path: Path, kind: str
) -> None:
    recipe = make_recipe(kind)
    run(recipe)
    whole = load_checkpoint(tmp_path / "run" / "checkpoint")
    tokenizer = whole.open_tokenizer()
    tasks = load_task_data(recipe, data_root, tokenizer)
    weight = 0.1 if kind == "instruction-encoder" else None
    rows = rows_to_read(tasks, 24, tokenizer, weight)
    assert len(rows) == 24 + 3 * (weight is not None)  # candidates are read, too
    pruned = copy.deepcopy(whole)
    base = pruned.model.encoder if weight else pruned.model.base_model
    with torch.no_grad():  # let the layers matter
        for model in (whole.model, pruned.model):
            for part in parts_of(model.encoder if weight else model.base_model):
                for place in (part.outer, part.output):
                    linear(place).weight.mul_(20.0)
    keep_heads(base, [[0], [1]])
    keep_neurons(base, [torch.arange(32)] * 2)
    batches = token_batches(rows, 0)
    sums: list[torch.Tensor] = []
    for step in range(2):
        if step:
            refit(whole.model, pruned.model, [0, 1], batches)
        errors = [
            ((read(whole.model, *batch) - read(pruned.model, *batch)) ** 2).mean()
            for batch in batches
        ]
        sums.append(torch.stack(errors).mean())
    assert sums[1] < 0.3 * sums[0]
    assert not pruned.model.training


def read(model: torch.nn.Module, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Token states, those of padding at zero."""
    base = model.encoder if hasattr(model, "encode") else model.base_model
    with torch.no_grad():
        states: torch.Tensor = base(input_ids=ids, attention_mask=mask)[0]
    return states * mask.unsqueeze(-1)


def test_a_run_is_pruned_without_a_refit_where_none_is_wanted(
    make_recipe: Make, run: Run, data_root: Path, tmp_path: Path
) -> None:
    run(make_recipe())
    said: list[list[str]] = [[], []]
    for number, use_refit in enumerate((True, False)):
        pruning = Pruning(ffn=0.5, rows=24, epochs=0, refit=use_refit)
        out = tmp_path / f"small-{number}"
        prune_run(
            tmp_path / "run",
            pruning,
            out,
            data_root=data_root,
            is_quiet=True,
            say=said[number].append,
        )
    assert ["fitting what is left ..." in lines for lines in said] == [True, False]
    outers = []
    for number in (0, 1):
        checkpoint = load_checkpoint(tmp_path / f"small-{number}" / "checkpoint")
        outers.append(linear(parts_of(checkpoint.model.encoder)[0].outer))
    assert not torch.equal(outers[0].weight, outers[1].weight)
