"""Heads of transformers over gRPC: tune, export, serve, ask, evaluate, by their verbs."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from instructrec_deploy.cli.server_process import running_server, verb_command
from instructrec_deploy.export.run import export_run
from instructrec_training.run import train
from tests.tiny_base import write_tiny_base
from tests.tiny_heads import recipe_of, write_rows


def verb(*words: str) -> str:
    done = subprocess.run(
        verb_command(*words), capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model_kind", "task_kind", "headline", "asked"),
    [
        ("token-classification", "ner", "entity_f1", []),
        ("question-answering", "qa", "f1", ["--task", "t", "-i", "what thing"]),
    ],
)
def test_a_head_answers_with_spans_over_grpc(
    model_kind: str, task_kind: str, headline: str, asked: list[str], tmp_path: Path
) -> None:
    root = write_rows(tmp_path / "data", task_kind)
    recipe = recipe_of(write_tiny_base(tmp_path / "base"), model_kind, task_kind)
    train(recipe, tmp_path / "run", data_root=root, is_quiet=True)
    export_run(tmp_path / "run", tmp_path / "bundle", precision="int8")
    with running_server(tmp_path / "bundle", tmp_path / "server.log") as server:
        server.wait_ready()
        told = verb("predict", "--address", server.address, "--json", *asked, "查询余额")
        file = str(root / "rows.jsonl")
        figures = json.loads(
            verb("evaluate", "--address", server.address, "--data", file, "--json")
        )
        assert server.stop() == 0
    (span,) = json.loads(told)["spans"][:1]
    assert (span["start"], span["end"], span["text"]) == (2, 4, "余额")
    assert figures[headline] >= 0.8  # int8 of a random 32-wide model
