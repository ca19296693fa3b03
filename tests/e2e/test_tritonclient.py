"""The real tritonclient, unchanged, against a real server.

It wants an older protobuf than ours, so it runs in an environment of its own, which this test
makes when it is asked to: TRITONCLIENT=1 (from the package registry) or TRITONCLIENT=FILE.whl.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from instructrec_deploy.client.sync import Client
from instructrec_deploy.core.result import Prediction
from tests.serving import running_server

PROGRAM = Path(__file__).parents[1] / "triton_program.py"
WANTED = os.environ.get("TRITONCLIENT", "")
VERSION = "2.73.0"
TEXTS = ["I lost my card", "请问我的余额 😀"]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not WANTED, reason="makes an environment: ask for it by TRITONCLIENT=1"),
]


@pytest.fixture(scope="module")
def seen(
    tiny_bundle: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[dict[str, Any], list[Prediction]]]:
    """What tritonclient said, and what our own client says about the same texts."""
    folder = tmp_path_factory.mktemp("triton")
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    python = folder / "venv" / "bin" / "python"
    package = f"tritonclient[grpc]=={VERSION}" if WANTED == "1" else f"{WANTED}[grpc]"
    outside = {k: v for k, v in os.environ.items() if k not in ("PIP_CONSTRAINT", "PYTHONPATH")}
    subprocess.run([python, "-m", "pip", "install", "-q", package], check=True, env=outside)
    with running_server(tiny_bundle, folder / "server") as server:
        done = subprocess.run(
            [python, PROGRAM, server.address], capture_output=True, text=True, env=outside
        )
        assert done.returncode == 0, done.stderr
        with Client(server.address) as client:
            own = [p for p in client.predict_batch(TEXTS) if isinstance(p, Prediction)]
        yield json.loads(done.stdout), own


Seen = tuple[dict[str, Any], list[Prediction]]


def test_answers_are_those_of_the_own_client(seen: Seen) -> None:
    found, own = seen
    labels, scores = [p.label for p in own], [p.score for p in own]
    assert found["row"]["label"] == {"shape": [2], "values": labels}
    assert found["row"]["score"]["values"] == pytest.approx(scores, abs=1e-5)
    assert found["column"]["label"] == {"shape": [2, 1], "values": labels}
    assert found["async"] == found["aio"] == found["row"]["label"]
    assert [answer["label"] for answer in found["answers"]] == labels


def test_id_outputs_inputs_and_parameters_are_honoured(seen: Seen) -> None:
    found, _ = seen
    assert (found["id"], found["column_has_answer"]) == ("mine", False)
    assert (found["own"]["label"], len(found["own"]["scores"])) == ("refund", 1)
    assert found["task"] == ["sentiment", "sentiment"]


def test_server_and_model_are_told(seen: Seen) -> None:
    found, _ = seen
    assert [found[n] for n in ("live", "ready", "model_ready", "other_ready")] == [
        True,
        True,
        True,
        False,
    ]
    assert (found["server"], found["index"]) == ("instructrec", [["tiny", "READY"]])
    assert found["outputs"] == ["label", "score", "answer"]
    type_string, type_fp32 = 13, 11
    assert found["config"] == ["tiny", 256, ["text"], type_string, type_fp32]


def test_a_refusal_arrives_in_words(seen: Seen) -> None:
    status, message = seen[0]["refused"]
    assert status == "StatusCode.INVALID_ARGUMENT"
    assert message == "text[1]: the text is empty"
