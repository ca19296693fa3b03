"""Tuned folders of transformers are exported as they are, and answer as they do in transformers."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from instructrec_deploy.cli.main import main
from instructrec_deploy.core.bundle import open_bundle
from instructrec_deploy.core.errors import ConfigError, FileMissing, WeightsRefused
from instructrec_deploy.export.imports import import_folder
from instructrec_deploy.export.run import export_run
from instructrec_deploy.models.checkpoint import load_checkpoint
from instructrec_deploy.runtime.predictor import Predictor
from instructrec_deploy.runtime.providers import CPU, open_session
from tests.tiny import LABELS, tiny_tokenizer

FAMILIES = {
    "bert": ("Bert", {}),
    "roberta": ("Roberta", {}),
    "distilbert": ("DistilBert", {}),
    "deberta-v2": (
        "DebertaV2",
        {"relative_attention": True, "pos_att_type": ["p2c", "c2p"], "position_buckets": 16},
    ),
    "electra": ("Electra", {"embedding_size": 32}),
}
TAGS = ("O", "B-thing", "I-thing", "B-event", "I-event")
TEXTS = (
    "I lost my card",
    "请问余额是什么 😊",
    "my transfer failed, please get it back",
)
QUESTION = "what is lost"
HIDDEN = 64


def write_folder(folder: Path, family: str, head: str, **changes: Any) -> Any:
    """A random model with a head, as `save_pretrained` leaves it; its answers differ by text."""
    torch.manual_seed(3)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer(),
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=["input_ids", "token_type_ids", "attention_mask"]
        if family in ("bert", "electra")
        else ["input_ids", "attention_mask"],
    )
    stem, own = FAMILIES[family]
    sizes: dict[str, Any] = {
        "hidden_size": HIDDEN,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 128,
    }
    if family == "distilbert":
        sizes = {"dim": HIDDEN, "n_layers": 2, "n_heads": 2, "hidden_dim": 128}
    labels = {"SequenceClassification": LABELS, "TokenClassification": TAGS}.get(head)
    if labels:
        sizes |= {
            "id2label": dict(enumerate(labels)),
            "label2id": {label: number for number, label in enumerate(labels)},
        }
    config = getattr(transformers, f"{stem}Config")(
        vocab_size=len(tokenizer),
        max_position_embeddings=64,
        pad_token_id=0,
        **(sizes | own | changes),
    )
    model = getattr(transformers, f"{stem}For{head}")(config).eval()
    for name, weight in model.named_parameters():
        if weight.dim() == 2:
            torch.nn.init.normal_(weight, std=0.5 if "embed" in name else 0.15)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return model


def near(ours: Any, theirs: Any) -> bool:
    """Within 1e-4 of the largest."""
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    return bool(np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max())


def bundle_of(folder: Path, tmp_path: Path, **options: Any) -> Path:
    run = import_folder(folder, tmp_path / "imported" / folder.name)
    return export_run(run, tmp_path / "bundle", precision="fp32", **options).out


@pytest.mark.parametrize("family", FAMILIES)
def test_sequence_classifiers_answer_as_in_transformers(family: str, tmp_path: Path) -> None:
    folder = tmp_path / "my-model"
    model = write_folder(folder, family, "SequenceClassification")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    bundle = bundle_of(folder, tmp_path)
    manifest = open_bundle(bundle).manifest
    assert (manifest.name, manifest.model.base) == ("my-model", "my-model")
    with Predictor(bundle, guard=False) as predictor:
        for text in TEXTS:
            for second in ("", "get a refund"):
                read = tokenizer(*filter(None, (text, second)), return_tensors="pt")
                with torch.no_grad():
                    theirs = torch.softmax(model(**read).logits[0], -1)
                answer = predictor.predict(text, text2=second, top_k=0).answers[0]
                ours = {score.label: score.score for score in answer.scores}
                assert near([ours[label] for label in LABELS], theirs)


@pytest.mark.parametrize("head", ["TokenClassification", "QuestionAnswering"])
@pytest.mark.parametrize("family", FAMILIES)
def test_heads_of_spans_give_the_logits_of_transformers(
    family: str, head: str, tmp_path: Path
) -> None:
    model = write_folder(tmp_path / "model", family, head)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    bundle = bundle_of(tmp_path / "model", tmp_path)
    session = open_session(bundle / "graphs" / "encoder.onnx", providers=[CPU], n_threads=1)
    own = load_checkpoint(tmp_path / "imported" / "model" / "checkpoint").open_tokenizer()
    for text in TEXTS:
        if head == "QuestionAnswering":
            read = tokenizer(QUESTION, text, return_tensors="pt")
            ids = own.encode_windows(text, second=QUESTION)[0].ids
        else:
            read = tokenizer(text, return_tensors="pt")
            ids = own.encode_windows(text)[0].ids
        assert ids == read["input_ids"][0].tolist()
        with torch.no_grad():
            found = model(**read)
        if head == "QuestionAnswering":
            theirs = torch.stack([found.start_logits, found.end_logits], -1)
        else:
            theirs = found.logits
        given = {name: read[name].numpy() for name in ("input_ids", "attention_mask")}
        assert near(session.run(["logits"], given)[0], theirs)


def test_int8_of_an_imported_model_passes_the_gate(tmp_path: Path) -> None:
    write_folder(tmp_path / "model", "bert", "SequenceClassification")
    run = import_folder(tmp_path / "model", tmp_path / "run")
    assert export_run(run, tmp_path / "bundle").parity.agreement >= 0.95


def test_a_model_of_several_labels_at_once_stays_one(tmp_path: Path) -> None:
    model = write_folder(
        tmp_path / "model",
        "bert",
        "SequenceClassification",
        problem_type="multi_label_classification",
    )
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    bundle = bundle_of(tmp_path / "model", tmp_path)
    assert open_bundle(bundle).tasks.tasks["label"].decision == "any"
    with Predictor(bundle, guard=False) as predictor, torch.no_grad():
        answer = predictor.predict(TEXTS[0], top_k=0).answers[0]
        theirs = torch.sigmoid(model(**tokenizer(TEXTS[0], return_tensors="pt")).logits[0])
    ours = {score.label: score.score for score in answer.scores}
    assert near([ours[label] for label in LABELS], theirs)


def test_the_command_line_exports_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path / "model", "distilbert", "SequenceClassification")
    out = tmp_path / "bundle"
    words = ["instructrec", "export", f"hf:{tmp_path / 'model'}", "--out", str(out), "--json"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as ended:
        main()
    assert not ended.value.code
    assert json.loads(capsys.readouterr().out)["name"] == "model"
    assert open_bundle(out).manifest.model.precision == "int8"


def test_weights_that_are_a_pickle_are_refused_unread(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_folder(folder, "bert", "SequenceClassification")
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(WeightsRefused, match="pickle") as error:
        import_folder(folder, tmp_path / "run")
    assert "safetensors" in error.value.hint
    assert not (tmp_path / "run").exists()
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(FileMissing, match="no weights"):
        import_folder(folder, tmp_path / "run")


def test_what_has_no_head_that_is_served_is_told(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    write_folder(folder, "bert", "SequenceClassification")
    config = json.loads((folder / "config.json").read_text("utf-8"))
    (folder / "config.json").write_text(json.dumps(config | {"architectures": ["BertModel"]}))
    with pytest.raises(ConfigError, match="BertModel; none is imported"):
        import_folder(folder, tmp_path / "run")
    one = config | {"id2label": {"0": "score"}, "label2id": {"score": 0}}
    (folder / "config.json").write_text(json.dumps(one))
    with pytest.raises(ConfigError, match="one number"):
        import_folder(folder, tmp_path / "run")
    with pytest.raises(FileMissing, match=r"no config\.json"):
        import_folder(tmp_path / "nowhere", tmp_path / "run")
