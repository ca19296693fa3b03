"""Device and precision choice, and two CPU processes that train one model together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertModel

from instructrec_deploy.core.errors import ConfigError
from instructrec_training.devices import FUSED_FROM_TOKENS, choose_precision, suit_attention
from instructrec_training.recipe import Recipe
from instructrec_training.run import train
from tests.serving import free_port
from tests.tiny_runs import weights_of, with_all_shapes

MakeRecipe = Callable[..., Recipe]

TWO_CPU_PROCESSES = {
    "ACCELERATE_USE_CPU": "true",
    "GLOO_SOCKET_IFNAME": "lo",
    "OMP_NUM_THREADS": "1",
}
SCRIPT = """
import sys
from pathlib import Path
from instructrec_training.loop import Loop
from instructrec_training.recipe import Recipe
from instructrec_training.run import train
recipe = Recipe.model_validate_json(Path(sys.argv[1]).read_text())
mode, out, root = sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4])
real = Loop._step

def step(self, batches):
    if mode == "killed" and self.progress.step == 3:
        sys.exit(9)
    return real(self, batches)

Loop._step = step
train(recipe, out, data_root=root, resume=mode == "resumed", is_quiet=True)
"""


@pytest.mark.parametrize(
    ("wanted", "has_bf16", "chosen"),
    [
        ("auto", True, "bf16"),
        ("auto", False, "fp32"),
        ("bf16", False, "bf16"),
        ("fp32", True, "fp32"),
    ],
)
def test_only_a_device_with_bf16_chooses_it_by_itself(
    wanted: str, has_bf16: bool, chosen: str
) -> None:
    assert choose_precision(wanted, has_bf16=has_bf16) == chosen


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_training_runs_on_the_gpu(make_recipe: MakeRecipe, data_root: Path, tmp_path: Path) -> None:
    report = train(make_recipe(epochs=1), tmp_path / "run", data_root=data_root, is_quiet=True)
    assert report.device.startswith("cuda")


def start(recipe: Recipe, mode: str, run: Path, data_root: Path) -> bytes:
    """Train in two processes; what they said on standard error, b"" where all went well."""
    script, file = run.parent / "train.py", run.parent / "recipe.json"
    script.write_text(SCRIPT)
    file.write_text(recipe.model_dump_json())
    done = subprocess.run(
        [
            *[sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"],
            *["--master-addr", "127.0.0.1", "--master-port", str(free_port())],
            *[str(script), str(file), mode, str(run), str(data_root)],
        ],
        env={**os.environ, **TWO_CPU_PROCESSES},
        capture_output=True,
        timeout=180,
        check=False,
    )
    return b"" if done.returncode == 0 else done.stderr[-6000:] or b"no words"


@pytest.mark.slow
def test_two_processes_train_one_model(
    make_recipe: MakeRecipe, data_root: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert start(make_recipe(epochs=2, probe=True), "whole", run, data_root) == b""
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [event["epoch"] for event in log if event["event"] == "epoch"] == [1, 2]
    assert (run / "evaluation.json").is_file()


@pytest.mark.slow
def test_two_processes_that_were_killed_resume_to_the_same_weights(
    make_recipe: MakeRecipe, data_root: Path, tmp_path: Path
) -> None:
    # dropout and the draw of wordings differ by process, so each one's generators must come back
    settings: dict[str, Any] = {
        "epochs": 2,
        "checkpoint_steps": 1,
        "batch_size": 4,
        "steps_per_epoch": 3,
    }
    settings |= {"adaptive_weights": True, "ema_decay": 0.9, "lora_rank": 2, "lora_dropout": 0.1}
    settings |= {"adversarial_epsilon": 0.1}
    recipe = with_all_shapes(make_recipe(), data_root, **settings)
    assert start(recipe, "whole", tmp_path / "whole", data_root) == b""
    assert start(recipe, "killed", tmp_path / "run", data_root) != b""
    with pytest.raises(ConfigError, match="2 processes, and is resumed with 1"):
        train(recipe, tmp_path / "run", data_root=data_root, resume=True, is_quiet=True)
    assert start(recipe, "resumed", tmp_path / "run", data_root) == b""
    whole, resumed = weights_of(tmp_path / "whole"), weights_of(tmp_path / "run")
    for name, value in whole.items():
        assert torch.equal(value, resumed[name]), name


def test_long_rows_in_bf16_keep_the_fused_attention() -> None:
    config = BertConfig(
        vocab_size=8,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=2 * FUSED_FROM_TOKENS,
    )
    model = torch.nn.ModuleDict({"encoder": BertModel(config)})
    suit_attention(model, SimpleNamespace(device=torch.device("cpu"), mixed_precision="bf16"))
    for n_tokens, chosen in ((FUSED_FROM_TOKENS - 1, "eager"), (FUSED_FROM_TOKENS, "sdpa")):
        ids = torch.zeros(1, n_tokens, dtype=torch.int64)
        for _ in range(2):
            model["encoder"](input_ids=ids, attention_mask=torch.ones_like(ids))
            assert model["encoder"].config._attn_implementation == chosen
