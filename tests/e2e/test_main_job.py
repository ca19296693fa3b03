"""The main job by its verbs, one process each: tune, export, serve, ask, evaluate, stop."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from instructrec_deploy.cli.server_process import running_server, verb_command
from tests.tiny_base import write_tiny_base, write_tiny_data

RECIPE = """
name = "tiny"

[model]
kind = "{kind}"
base = "{base}"

[[data]]
path = "intents.jsonl"
task = "intent"
validation_split = "val"

[tasks.intent.instructions]
en = ["Which intent does this customer have?"]
zh = ["这位顾客想做什么？"]

[training]
epochs = 30
batch_size = 8
learning_rate = 1e-3
probe = true
patience = 30
"""


def verb(*words: str) -> str:
    done = subprocess.run(
        verb_command(*words), capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["instruction-encoder", "sequence-classification"])
def test_a_labelled_file_becomes_answers_over_grpc(kind: str, tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "data")
    base = write_tiny_base(tmp_path / "base")
    recipe, run, bundle = tmp_path / "tiny.toml", tmp_path / "run", tmp_path / "bundle"
    recipe.write_text(RECIPE.format(kind=kind, base=base), encoding="utf-8")

    told = json.loads(
        verb("train", str(recipe), "--out", str(run), "--data-root", str(data), "--json")
    )
    verb("export", str(run), "--out", str(bundle))
    verb("bundle", "verify", str(bundle))
    with running_server(bundle, tmp_path / "server.log") as server:
        server.wait_ready()
        question = ["predict", "--address", server.address, "--json"]
        lost, balance = verb(*question, "i lost my card", "查询余额").splitlines()
        file = str(data / "intents.jsonl")
        figures = json.loads(
            verb("evaluate", "--address", server.address, "--data", file, "--json")
        )
        assert server.stop() == 0
    assert json.loads(lost)["label"] == "card lost"
    assert json.loads(balance)["label"] == "余额"
    assert json.loads(lost)["model"] == "tiny"
    assert figures["n"] == 6
    # int8 of a random 32-wide model: at most one of six rows may tip
    assert figures["accuracy"] >= told["after"]["intent"]["accuracy"] - 1 / 6 - 1e-6
