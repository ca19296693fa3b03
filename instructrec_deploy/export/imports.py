"""`hf:FOLDER`: a tuned model of transformers becomes a run that can be exported.

The folder is in Hugging Face's layout (`config.json`, `model.safetensors`, a tokenizer), or one
that Optimum exported (`model.onnx` in place of weights). Nothing in it is executed: weights that
are a pickle are refused, and code of the folder's own is not run.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import tomli_w

from instructrec_deploy.core.bundle import TASKS_FILE
from instructrec_deploy.core.errors import ConfigError, FileMissing, WeightsRefused
from instructrec_deploy.core.manifest import GeneratorKind, ModelKind, TaskBook, TaskSpec
from instructrec_deploy.core.tags import TagScheme
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.export.onnx_import import import_onnx, is_onnx_folder
from instructrec_deploy.export.source import CHECKPOINT_FOLDER
from instructrec_deploy.models.checkpoint import build_checkpoint, save_checkpoint

SCHEME = "hf:"
MAX_TOKENS = 512  # of a text; longer ones lose their end, or are read in windows
HEADS: dict[str, ModelKind] = {  # how an architecture's name ends
    "ForSequenceClassification": "sequence-classification",
    "ForTokenClassification": "token-classification",
    "ForQuestionAnswering": "question-answering",
}
GENERATORS: dict[str, GeneratorKind] = {  # the same of models that write
    "ForConditionalGeneration": "seq2seq",
    "ForCausalLM": "causal",
    "LMHeadModel": "causal",
}
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")
TASKS: dict[ModelKind, tuple[str, TaskKind, str]] = {  # name, kind, what is shown as asked
    "sequence-classification": ("label", TaskKind.CLASSIFICATION, "Which label fits this text?"),
    "token-classification": ("entities", TaskKind.NER, "Find the named entities"),
    "question-answering": ("answer", TaskKind.QA, "Answer the question from the text"),
}


def import_folder(folder: Path, run: Path) -> Path:
    """Write a run folder from a model folder of transformers.

    Its one task has the labels of the head: one of them, or any where the configuration says
    `multi_label_classification`. Instructions are shown to people; a head reads none.

    Args:
        folder: the model.
        run: what to write.

    Returns:
        The run folder.

    Raises:
        FileMissing: no such folder, no configuration or no weights.
        WeightsRefused: the weights are a pickle.
        ConfigError: it has no head that is served, or it cannot be loaded.
    """
    config = _read_config(folder)
    kind = _kind_of(config, folder)
    is_onnx = is_onnx_folder(folder)
    if not is_onnx:
        check_weights(folder)
    labels = _labels_of(config) if kind != "question-answering" else ()
    if kind == "sequence-classification" and len(labels) < 2:
        raise ConfigError(
            f"{folder}: its head gives one number, no labels",
            hint="models that answer with a number are not served",
        )
    types = TagScheme.of(labels).types if kind == "token-classification" else labels
    target = run / CHECKPOINT_FOLDER
    if is_onnx:
        import_onnx(folder, target, config, kind=kind, labels=labels, max_tokens=MAX_TOKENS)
    else:
        checkpoint = build_checkpoint(
            str(folder.resolve()),
            kind=kind,
            labels=types,
            max_tokens=MAX_TOKENS,
            work=run / "imported",
            has_own_pairs=kind == "sequence-classification",
        )
        save_checkpoint(checkpoint, target)
    name, task_kind, words = TASKS[kind]
    is_any = config.get("problem_type") == "multi_label_classification"
    spec = TaskSpec(
        kind=task_kind,
        labels=types,
        instructions={"en": (words,)},
        decision="any" if is_any and kind == "sequence-classification" else "one",
        offset=0.0 if is_any and kind == "sequence-classification" else None,
        threshold=0.0 if kind == "token-classification" else 0.5,  # its likeliest tags as they are
    )
    book = TaskBook(default_task=name, tasks={name: spec})
    text = tomli_w.dumps(book.model_dump(mode="json"))
    (run / TASKS_FILE).write_text(text, encoding="utf-8")
    return run


def generator_kind(folder: Path) -> GeneratorKind | None:
    """Whether the folder's model writes text, and how; None where it has a head, or neither.

    Raises:
        FileMissing, ConfigError: no configuration is there, or it is no JSON object.
        WeightsRefused: the model writes, and its weights are a pickle.
    """
    for name in _architectures(_read_config(folder)):
        for ending, kind in GENERATORS.items():
            if name.endswith(ending):
                check_weights(folder)
                return kind
    return None


def check_weights(folder: Path) -> None:
    """Let only weights in safetensors pass.

    Raises:
        WeightsRefused: there are none, but a pickle is.
        FileMissing: there are none at all.
    """
    if any(folder.glob("*.safetensors")):
        return
    for pattern in PICKLES:
        for file in sorted(folder.glob(pattern)):
            raise WeightsRefused(
                f"{folder}: its weights are a pickle ({file.name}), which may run code when read",
                hint="where you trust it, load it with transformers and save it with "
                "`model.save_pretrained(FOLDER)`: that writes model.safetensors",
            )
    raise FileMissing(f"{folder} has no weights", hint="it needs model.safetensors")


def _read_config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        raise FileMissing(
            f"{folder} is no model folder of transformers (no config.json)",
            hint="name a folder that `save_pretrained` wrote, or download one first",
        )
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: not valid JSON", hint="download it again") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{file}: no JSON object", hint="download it again")
    return config


def _kind_of(config: dict[str, Any], folder: Path) -> ModelKind:
    names = _architectures(config)
    for name in names:
        for ending, kind in HEADS.items():
            if name.endswith(ending):
                return kind
    raise ConfigError(
        f"{folder}: {', '.join(names) or 'no architecture named'}; none is imported",
        hint=f"architectures that end with {', '.join([*HEADS, *GENERATORS])}; a bare encoder is "
        "tuned first",
    )


def _architectures(config: dict[str, Any]) -> list[str]:
    return [str(name) for name in config.get("architectures") or ()]


def _labels_of(config: dict[str, Any]) -> tuple[str, ...]:
    """In the order of the logits."""
    named = config.get("id2label")
    if not isinstance(named, dict):  # transformers writes none where there are its default two
        n_labels = int(config.get("num_labels", 2))
        return tuple(f"LABEL_{number}" for number in range(n_labels))
    return tuple(str(named[key]) for key in sorted(named, key=int))
