"""What a fresh process loads: serving knows no training framework, asking knows no engine."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TRAINING = ("torch", "transformers", "optimum", "onnx", "sklearn", "accelerate")


def loaded_after(code: str, *, folder: Path | None = None) -> set[str]:
    """Top-level modules of a fresh Python that ran the code."""
    report = "import sys; print(' '.join({name.split('.')[0] for name in sys.modules}))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}", *([str(folder)] if folder else [])],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "module",
    [
        "instructrec_deploy.cli.main",
        "instructrec_deploy.cli.asking",
        "instructrec_deploy.cli.predict",
        "instructrec_deploy.runtime.predictor",
        "instructrec_deploy.runtime.scheduler",
        "instructrec_deploy.runtime.feedback_intake",
        "instructrec_deploy.runtime.writer",
        "instructrec_deploy.runtime.golden_texts",
        "instructrec_deploy.server.app",
        "instructrec_deploy.client.sync",
        "instructrec_deploy.client.aio",
        "instructrec_deploy.evaluation.evaluate",
        "instructrec_deploy.evaluation.wording_search",
        "instructrec_deploy.cli.wording_job",
    ],
)
def test_the_serving_path_loads_no_training_framework(module: str) -> None:
    assert loaded_after(f"import {module}").isdisjoint(TRAINING)


def test_answering_in_process_loads_no_training_framework(tiny_bundle: Path) -> None:
    code = (
        "import sys\nfrom instructrec_deploy import Predictor\n"
        "with Predictor(sys.argv[1]) as predictor: predictor.predict('refund')"
    )
    found = loaded_after(code, folder=tiny_bundle)
    assert "onnxruntime" in found
    assert found.isdisjoint(TRAINING)


@pytest.mark.parametrize("name", ["Client", "AsyncClient"])
def test_the_client_loads_neither_numpy_nor_an_engine(name: str) -> None:
    found = loaded_after(f"from instructrec_deploy import {name}")
    assert found.isdisjoint({"numpy", "onnxruntime", "tokenizers", *TRAINING})


def test_the_supervisor_of_workers_loads_neither_grpc_nor_an_engine() -> None:
    found = loaded_after("import instructrec_deploy.cli.supervise")
    assert found.isdisjoint({"grpc", "numpy", "onnxruntime", "pydantic", "typer", *TRAINING})


def test_importing_the_package_loads_next_to_nothing() -> None:
    found = loaded_after("import instructrec_deploy")
    assert found.isdisjoint({"numpy", "grpc", "onnxruntime", "pydantic", *TRAINING})


def test_the_help_of_all_verbs_loads_no_framework() -> None:
    code = (
        "import sys\nfrom instructrec_deploy.cli.main import main\n"
        "sys.argv = ['instructrec', '--help']\n"
        "try: main()\nexcept SystemExit: pass"
    )
    assert loaded_after(code).isdisjoint({"numpy", "onnxruntime", "grpc", *TRAINING})
