"""What transformers loads for us, quietly: models, their tokenizers, their configurations."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from instructrec_deploy.core.errors import BundleError, ConfigError
from instructrec_deploy.core.manifest import ModelKind
from instructrec_deploy.models.hub import check_reachable
from instructrec_deploy.models.shrink import shrink_heads

TOKENIZER_FILE = "tokenizer.json"
WEIGHTS_FILE = "model.safetensors"
LOADERS: dict[ModelKind, str] = {
    "instruction-encoder": "AutoModel",
    "sequence-classification": "AutoModelForSequenceClassification",
    "token-classification": "AutoModelForTokenClassification",
    "question-answering": "AutoModelForQuestionAnswering",
}
DROPOUT_NAMES = (  # what the families call it
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "dropout",
    "attention_dropout",
)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Keep transformers' load reports and bars off the terminal while it works."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()  # type: ignore[no-untyped-call]


@contextlib.contextmanager
def loading(source: str) -> Iterator[None]:
    """Around what transformers loads, quietly; what it raises becomes a ConfigError."""
    if not Path(source).exists():
        check_reachable(source)
    try:
        with quiet_transformers():
            yield
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"model {source!r} cannot be loaded: {type(error).__name__}",
            hint="name a preset (`instructrec models list`), a transformers folder, or a hub id "
            "that this machine can reach",
        ) from error


def load_transformers(
    source: str,
    labels: Sequence[str],
    *,
    head: str,
    dropout: float | None = None,
    kept_heads: int = 0,
) -> Any:
    """A model of transformers in float32.

    Args:
        source: a folder or a hub id.
        labels: of its head.
        head: the class that loads it (`LOADERS`).
        dropout: replaces the configuration's own.
        kept_heads: of each attention, where a checkpoint of ours has fewer than its configuration.

    Raises:
        ConfigError: it cannot be loaded.
    """
    import transformers

    extra: dict[str, Any] = {}
    loader: Any = getattr(transformers, head)
    if head == LOADERS["question-answering"]:  # a base with a head of other labels says how many
        extra |= {"num_labels": 2, "ignore_mismatched_sizes": True}
    elif labels and head != "AutoModel":
        extra |= {
            "num_labels": len(labels),
            "id2label": dict(enumerate(labels)),
            "label2id": {label: i for i, label in enumerate(labels)},
            "ignore_mismatched_sizes": True,
        }
    with loading(source):
        config = transformers.AutoConfig.from_pretrained(source)
        for name in DROPOUT_NAMES if dropout is not None else ():
            if hasattr(config, name):
                extra[name] = dropout
        if kept_heads:
            model = _load_pruned(loader, source, kept_heads, extra)
        else:
            model = loader.from_pretrained(source, **extra)
    return model.to(torch.float32)


def _load_pruned(loader: Any, source: str, kept_heads: int, extra: dict[str, Any]) -> Any:
    """Weights of pruned attentions, which a configuration of transformers cannot describe."""
    import transformers

    sizes = {key: value for key, value in extra.items() if key != "ignore_mismatched_sizes"}
    config = transformers.AutoConfig.from_pretrained(source, **sizes)
    model = loader.from_config(config)
    shrink_heads(model.base_model, kept_heads)
    try:
        model.load_state_dict(load_file(Path(source) / WEIGHTS_FILE))
    except RuntimeError as error:  # names or shapes that are not there
        raise BundleError(
            f"{source}: its weights do not fit its configuration", hint="prune the run again"
        ) from error
    return model


def load_tokenizer(source: str, work: Path) -> tuple[Any, Path]:
    """transformers' tokenizer, and `tokenizer.json` written into `work`."""
    from transformers import AutoTokenizer

    with loading(source):
        tokenizer: Any = AutoTokenizer.from_pretrained(source)
    work.mkdir(parents=True, exist_ok=True)
    path = work / TOKENIZER_FILE
    tokenizer.backend_tokenizer.save(str(path), pretty=False)  # half as long, read faster
    return tokenizer, path
