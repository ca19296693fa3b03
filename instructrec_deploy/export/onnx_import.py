"""A folder that Optimum exported (`model.onnx`, `config.json`, `tokenizer.json`) as a checkpoint.

No Optimum is needed to read it. Nothing in it is executed but the graph's own operators.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from instructrec_deploy.core.bundle import TOKENIZER_FILE
from instructrec_deploy.core.errors import BundleError, ConfigError, FileMissing
from instructrec_deploy.core.manifest import ModelKind, describe_faults
from instructrec_deploy.export.onnx_model import ONNX_FILE, OnnxModel, check_opset
from instructrec_deploy.models.checkpoint import SECTION_FILE, Checkpoint, CheckpointSection
from instructrec_deploy.text.tokenizer import TextTokenizer

OFFSET_FAMILIES = {"roberta", "xlm-roberta", "camembert"}  # positions start behind the padding


def is_onnx_folder(folder: Path) -> bool:
    """Whether a model folder holds a graph and no weights in safetensors."""
    return (folder / ONNX_FILE).is_file() and not any(folder.glob("*.safetensors"))


def import_onnx(
    folder: Path,
    out: Path,
    config: dict[str, Any],
    *,
    kind: ModelKind,
    labels: tuple[str, ...],
    max_tokens: int,
) -> Checkpoint:
    """Write a checkpoint folder from a folder that Optimum exported.

    Args:
        folder: with `model.onnx` and `tokenizer.json`.
        out: the checkpoint; made.
        config: the content of `config.json`.
        kind: of the head.
        labels: of the head, in logit order: labels, or tags.
        max_tokens: that are read of a text, at most.

    Raises:
        FileMissing: it has no tokenizer.json.
        ConfigError: the graph is no encoder with a head, or too old.
        BundleError: the graph or the tokenizer cannot be read.
    """
    if not (folder / TOKENIZER_FILE).is_file():
        raise FileMissing(
            f"{folder} has no {TOKENIZER_FILE}",
            hint="save the tokenizer beside the graph: "
            "AutoTokenizer.from_pretrained(MODEL).save_pretrained(FOLDER)",
        )
    check_opset(folder / ONNX_FILE)
    out.mkdir(parents=True, exist_ok=True)
    for name in (ONNX_FILE, TOKENIZER_FILE):
        shutil.copyfile(folder / name, out / name)
    positions = int(config.get("max_position_embeddings", max_tokens))
    positions -= 2 if config.get("model_type") in OFFSET_FAMILIES else 0
    window = min(max_tokens, positions)
    section = CheckpointSection(
        kind=kind,
        base=str(folder.resolve()),
        hidden_size=int(config.get("hidden_size") or config.get("dim") or 0),
        n_heads=int(config.get("num_attention_heads") or config.get("n_heads") or 0),
        max_tokens=window,
        pad_id=int(config.get("pad_token_id") or 0),
        joint_questions=kind == "question-answering",
        labels=labels,
        separator_id=_separator_of(folder / TOKENIZER_FILE, window),
    )
    if not (section.hidden_size and section.n_heads):
        raise ConfigError(
            f"{folder}/config.json names no hidden_size or no num_attention_heads",
            hint="take the config.json of the model that was exported",
        )
    text = section.model_dump_json(indent=2) + "\n"
    (out / SECTION_FILE).write_text(text, encoding="utf-8")
    return read_onnx_checkpoint(out)


def read_onnx_checkpoint(folder: Path) -> Checkpoint:
    """What `import_onnx` wrote.

    Raises:
        BundleError: it is damaged.
    """
    path = folder / SECTION_FILE
    try:
        section = CheckpointSection.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        raise BundleError(f"{path}: {describe_faults(error)}", hint="import it again") from error
    except (OSError, ValueError) as error:
        raise BundleError(f"{path} cannot be read", hint="import it again") from error
    model = OnnxModel(folder / ONNX_FILE, separator_id=section.separator_id)
    return Checkpoint(model.eval(), section, folder / TOKENIZER_FILE)


def _separator_of(tokenizer: Path, max_tokens: int) -> int:
    """The control token that ends a text, which is what stands between two; -1: there is none."""
    _, tail = TextTokenizer(tokenizer, max_tokens=max_tokens).frame
    return tail[0] if tail else -1
