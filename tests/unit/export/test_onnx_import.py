"""Folders as Optimum exports them become bundles that answer as their graphs do in transformers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from transformers import AutoTokenizer

from instructrec_deploy.cli.main import main
from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.errors import ConfigError, FileMissing
from instructrec_deploy.export.imports import import_folder
from instructrec_deploy.export.run import export_run
from instructrec_deploy.export.source import read_run
from instructrec_deploy.runtime.predictor import Predictor
from instructrec_deploy.runtime.providers import CPU, open_session
from tests.tiny import LABELS
from tests.unit.export.test_imports import QUESTION, TEXTS, near, write_folder

# A Python that has `optimum-onnx`; its transformers is older than ours, so not this one.
OPTIMUM = os.environ.get("INSTRUCTREC_OPTIMUM", "")
TASKS = {
    "SequenceClassification": "text-classification",
    "TokenClassification": "token-classification",
    "QuestionAnswering": "question-answering",
}
Write = Callable[[Path, str, str], Any]
AXES = {0: "batch_size", 1: "sequence_length"}  # by the names that Optimum gives them


def write_optimum(folder: Path, family: str, head: str) -> Any:
    """Weights replaced by `model.onnx` with Optimum's names of inputs, outputs and axes."""
    model = write_folder(folder, family, head)
    model.set_attn_implementation("eager")
    model.config.return_dict = False
    names = ["input_ids", "attention_mask"]
    names += ["token_type_ids"] if family in ("bert", "electra") else []
    is_question = head == "QuestionAnswering"
    outputs = ["start_logits", "end_logits"] if is_question else ["logits"]
    read = torch.ones((2, 9), dtype=torch.long)
    with torch.no_grad():
        torch.onnx.export(
            model,
            (),
            str(folder / "model.onnx"),
            kwargs=dict.fromkeys(names, read),
            input_names=names,
            output_names=outputs,
            dynamic_axes=dict.fromkeys([*names, *outputs], AXES)
            | ({"logits": {0: "batch_size"}} if head == "SequenceClassification" else {}),
            opset_version=17,
            dynamo=False,
        )
    (folder / "model.safetensors").unlink()
    return model


def write_by_optimum(folder: Path, family: str, head: str) -> Any:
    """The same, by Optimum itself."""
    model = write_folder(folder, family, head)
    out = folder.with_name(f"{folder.name}-onnx")
    words = ["-m", "optimum.exporters.onnx", "--model", str(folder), "--task", TASKS[head]]
    subprocess.run([OPTIMUM, *words, str(out)], check=True, timeout=300)
    (out / "model.onnx").rename(folder / "model.onnx")
    (folder / "model.safetensors").unlink()
    return model


needs_optimum = pytest.mark.skipif(not OPTIMUM, reason="INSTRUCTREC_OPTIMUM names no Python")
writers = pytest.mark.parametrize(
    "write", [write_optimum, pytest.param(write_by_optimum, marks=needs_optimum)]
)


def bundle_of(folder: Path, tmp_path: Path, **options: Any) -> Path:
    run = import_folder(folder, tmp_path / "imported" / folder.name)
    return export_run(run, tmp_path / "bundle", **options).out


@writers
@pytest.mark.parametrize("family", ["bert", "distilbert"])
def test_classifiers_answer_as_their_graph_did(write: Write, family: str, tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    model = write(folder, family, "SequenceClassification")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    bundle = bundle_of(folder, tmp_path, precision="fp32")
    manifest = open_bundle(bundle).manifest
    assert (manifest.name, manifest.model.base) == ("my-model", "my-model")
    assert manifest.model.n_parameters > 0
    with Predictor(bundle, guard=False) as predictor:
        for text in TEXTS:
            for second in ("", "get a refund"):
                read = tokenizer(*filter(None, (text, second)), return_tensors="pt")
                with torch.no_grad():
                    theirs = torch.softmax(model(**read)[0][0], -1)
                answer = predictor.predict(text, text2=second, top_k=0).answers[0]
                ours = {score.label: score.score for score in answer.scores}
                assert near([ours[label] for label in LABELS], theirs)


@writers
@pytest.mark.parametrize("head", ["TokenClassification", "QuestionAnswering"])
def test_heads_of_spans_give_the_logits_of_their_graph(
    write: Write, head: str, tmp_path: Path
) -> None:
    model = write(tmp_path / "model", "bert", head)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    bundle = bundle_of(tmp_path / "model", tmp_path, precision="fp32")
    session = open_session(bundle / "graphs" / "encoder.onnx", providers=[CPU], n_threads=1)
    for text in TEXTS:
        words = (QUESTION, text) if head == "QuestionAnswering" else (text,)
        read = tokenizer(*words, return_tensors="pt")
        with torch.no_grad():
            found = model(**read)
        theirs = torch.stack(found[:2], -1) if head == "QuestionAnswering" else found[0]
        given = {name: read[name].numpy() for name in ("input_ids", "attention_mask")}
        assert near(session.run(["logits"], given)[0], theirs)


def test_the_command_line_makes_an_int8_bundle_and_a_plan_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = tmp_path / "model", tmp_path / "bundle"
    write_optimum(folder, "bert", "SequenceClassification")
    for more, code in (["--target", "edge"], 2), ([], 0):
        words = ["instructrec", "export", f"hf:{folder}", "--out", str(out), *more]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code or 0) == code, capsys.readouterr().err
    model = open_bundle(out).manifest.model
    assert (model.precision, model.unpadded) == ("int8", True)  # its attention was recognised


def test_graphs_of_another_form_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_optimum(folder, "bert", "SequenceClassification")
    whole = onnx.load(folder / "model.onnx")
    graph = onnx.ModelProto()
    graph.CopyFrom(whole)
    graph.graph.output[0].name = "last_hidden_state"
    graph.graph.node[-1].output[0] = "last_hidden_state"
    onnx.save(graph, folder / "model.onnx")
    with pytest.raises(ConfigError, match="wanted logits"):
        import_folder(folder, tmp_path / "run")
    whole.opset_import[0].version = 11
    onnx.save(whole, folder / "model.onnx")
    with pytest.raises(ConfigError, match="opset 11"):
        import_folder(folder, tmp_path / "run")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FileMissing, match=r"no tokenizer\.json"):
        import_folder(folder, tmp_path / "run")


def test_a_run_of_an_imported_graph_is_read_again(tmp_path: Path) -> None:
    write_optimum(tmp_path / "model", "distilbert", "SequenceClassification")
    run = import_folder(tmp_path / "model", tmp_path / "run")
    assert read_run(run).checkpoint.section.labels == LABELS
