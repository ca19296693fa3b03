"""Device and precision choice, and two CPU processes that train one model together."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from instructrec_training.recipe import Recipe
from instructrec_training.run import choose_precision
from tests.serving import free_port

MakeRecipe = Callable[..., Recipe]

TWO_CPU_PROCESSES = {
    "ACCELERATE_USE_CPU": "true",
    "GLOO_SOCKET_IFNAME": "lo",
    "OMP_NUM_THREADS": "1",
}
SCRIPT = """
import sys
from pathlib import Path
from instructrec_training.recipe import Recipe
from instructrec_training.run import train
recipe = Recipe.model_validate_json(Path(sys.argv[1]).read_text())
train(recipe, Path(sys.argv[2]), data_root=Path(sys.argv[3]), is_quiet=True)
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
    from instructrec_training.run import train

    report = train(make_recipe(epochs=1), tmp_path / "run", data_root=data_root, is_quiet=True)
    assert report.device.startswith("cuda")


@pytest.mark.slow
def test_two_processes_train_one_model(
    make_recipe: MakeRecipe, data_root: Path, tmp_path: Path
) -> None:
    script, recipe, run = tmp_path / "train.py", tmp_path / "recipe.json", tmp_path / "run"
    script.write_text(SCRIPT)
    recipe.write_text(make_recipe(epochs=2, probe=True).model_dump_json())
    done = subprocess.run(
        [
            *[sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"],
            *["--master-addr", "127.0.0.1", "--master-port", str(free_port())],
            *[str(script), str(recipe), str(run), str(data_root)],
        ],
        env={**os.environ, **TWO_CPU_PROCESSES},
        capture_output=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()[-6000:]
    log = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [event["epoch"] for event in log if event["event"] == "epoch"] == [1, 2]
    assert (run / "evaluation.json").is_file()
