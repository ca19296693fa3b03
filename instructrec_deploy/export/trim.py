"""Vocabulary trimming: a checkpoint whose tokenizer and embeddings hold what its texts need.

Every text of the corpus, and every word of the tasks, is read as before; this is proved on each of
them. What other texts lose is estimated: the vocabulary is cut once to nine tenths of the corpus,
and the last tenth is read with it.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import nn

from instructrec_deploy.core.errors import ConfigError, InternalError
from instructrec_deploy.core.example import Example
from instructrec_deploy.core.manifest import TaskBook
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.evaluation.requests import candidates_of, has_candidates, passage_of
from instructrec_deploy.evaluation.targets import kind_of, question_of
from instructrec_deploy.export.samples import Sample
from instructrec_deploy.export.vocabulary import (
    choose_pieces,
    cut_tokenizer,
    pieces_of,
    read_tokenizer,
)
from instructrec_deploy.models.checkpoint import Checkpoint, transformers_part
from instructrec_deploy.models.loading import TOKENIZER_FILE
from instructrec_deploy.text.render import render_request

HELD_OUT = 10  # one text of so many, by its hash, tells what others lose
MIN_HELD_OUT = 20  # texts; of fewer nothing is told
CONTROL_KEYS = ("pad_token_id", "bos_token_id", "eos_token_id", "sep_token_id", "cls_token_id")


@dataclass(frozen=True, slots=True)
class Trimming:
    """What is kept.

    Args:
        texts: the corpus.
        size: fill the vocabulary up to so many pieces; 0: what the corpus needs.
    """

    texts: Sequence[str]
    size: int = 0


@dataclass(frozen=True, slots=True)
class UnseenReport:
    """How texts fare that the vocabulary was not cut for."""

    n_texts: int
    unchanged: float  # share of texts that read as before
    unknown: float  # share of pieces
    unknown_before: float
    growth: float  # pieces, against before


@dataclass(frozen=True, slots=True)
class TrimReport:
    """What trimming did."""

    n_before: int
    n_after: int
    n_texts: int  # that read as before: the whole corpus
    unseen: UnseenReport | None  # None: too few texts to tell

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON output."""
        found = asdict(self)
        if self.unseen is not None:
            found["unseen"] = {k: round(v, 6) for k, v in asdict(self.unseen).items()}
        return found


def corpus_texts(examples: Iterable[Example]) -> list[str]:
    """All that a model reads of labelled or plain rows: texts, second texts, candidates, labels."""
    found: dict[str, None] = {}
    for row in examples:
        passage = passage_of(row)
        words = [passage.text, passage.second]
        if kind_of(row) is TaskKind.QA:
            words.append(question_of(row))
        elif has_candidates(row):
            words += [candidate.words for candidate in candidates_of(row)]
        labels = row.target if isinstance(row.target, list) else [row.target]
        words += [label for label in labels if isinstance(label, str)]
        found |= dict.fromkeys(word for word in words if word)
    return list(found)


def task_texts(book: TaskBook, samples: Mapping[str, Sequence[Sample]]) -> list[str]:
    """What a bundle reads of its own: wordings, labels, descriptions, the texts it is tried on."""
    found: dict[str, None] = {}
    for name, spec in book.tasks.items():
        wordings = [w for of_lang in spec.instructions.values() for w in of_lang]
        wordings += spec.held_out.values()
        found |= dict.fromkeys(f"{wording}:" for wording in wordings)
        found |= dict.fromkeys([*spec.labels, *spec.descriptions.values()])
        if spec.labels:
            found[f"{spec.instruction(name).text}:"] = None  # asked where it has no wording
    for chosen in samples.values():
        for sample in chosen:
            passage = render_request(sample.request)
            found |= dict.fromkeys([passage.text, passage.second, sample.question])
    return [text for text in found if text]


def trim_checkpoint(
    checkpoint: Checkpoint, trimming: Trimming, own: Sequence[str], *, work: Path
) -> tuple[Checkpoint, TrimReport]:
    """Cut tokenizer and embeddings; the argument is left as it was.

    Args:
        checkpoint: any whose tokenizer is WordPiece or Unigram.
        trimming: the corpus, and how large the vocabulary becomes.
        own: texts that are kept beside the corpus (`task_texts`).
        work: a folder for `tokenizer.json`.

    Raises:
        ConfigError: the corpus is empty, or the tokenizer or the model cannot be trimmed.
    """
    if not trimming.texts:
        raise ConfigError("the corpus to trim the vocabulary to has no text", hint="name another")
    raw = read_tokenizer(checkpoint.tokenizer_path)
    before = _Reading(raw, checkpoint.section.text_prefix)
    own_counts = before.count(own)
    counts = {text: before.count([text]) for text in trimming.texts}
    unseen = _unseen(raw, before, trimming, counts, own_counts)
    used = sum(counts.values(), Counter(own_counts))
    kept = choose_pieces(raw, used, size=trimming.size)
    cut = cut_tokenizer(raw, kept)
    after, texts = _Reading(cut, checkpoint.section.text_prefix), [*trimming.texts, *own]
    changed = sum(not _same(before, after, text, kept) for text in texts)
    if changed:
        raise InternalError(f"trimmed, it reads {changed} of {len(texts)} texts wrongly")
    folder = work / "trimmed"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / TOKENIZER_FILE
    path.write_text(json.dumps(cut, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    trimmed = _cut_model(checkpoint, kept, path)
    n_before = len(pieces_of(raw))
    return trimmed, TrimReport(n_before, len(kept), len(trimming.texts), unseen)


class _Reading:
    """How texts are cut into pieces, in every part they may play."""

    def __init__(self, raw: Mapping[str, Any], prefix: str) -> None:
        self._tokenizer = Tokenizer.from_str(json.dumps(raw))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._tokenizer.encode_special_tokens = True
        self.prefix = prefix
        model = raw["model"]
        self.unknown = model.get("unk_id")
        if model["type"] == "WordPiece":
            self.unknown = model["vocab"][model["unk_token"]]
        special = {token["id"] for token in raw["added_tokens"] if token["special"]}
        self._control = special - {self.unknown}

    def ids(self, text: str) -> list[list[int]]:
        """As a text behind the prefix and as a candidate; cut where it spells a control token."""
        found = []
        for words in dict.fromkeys((self.prefix + text, text)):
            encoding = self._tokenizer.encode(words, add_special_tokens=False)
            found.append(list(encoding.ids))
            cuts = [
                start + 1
                for token, (start, end) in zip(encoding.ids, encoding.offsets, strict=True)
                if token in self._control and end - start > 1
            ]
            borders = [0, *cuts, len(words)]
            for start, end in itertools.pairwise(borders):
                if cuts:
                    part = self._tokenizer.encode(words[start:end], add_special_tokens=False)
                    found.append(list(part.ids))
        return found

    def count(self, texts: Iterable[str]) -> Counter[int]:
        """How often each piece is read."""
        found: Counter[int] = Counter()
        for text in texts:
            for ids in self.ids(text):
                found.update(ids)
        return found


def _same(before: _Reading, after: _Reading, text: str, kept: Sequence[int]) -> bool:
    return before.ids(text) == [[kept[i] for i in ids] for ids in after.ids(text)]


def _unseen(
    raw: Mapping[str, Any],
    before: _Reading,
    trimming: Trimming,
    counts: Mapping[str, Counter[int]],
    own: Mapping[int, int],
) -> UnseenReport | None:
    """Cut to nine tenths, read the last one."""
    held_out = [text for text in trimming.texts if _is_held_out(text)]
    if len(held_out) < MIN_HELD_OUT:
        return None
    seen = [counts[text] for text in trimming.texts if not _is_held_out(text)]
    used = sum(seen, Counter(own))
    kept = choose_pieces(raw, used, size=trimming.size)
    after = _Reading(cut_tokenizer(raw, kept), before.prefix)
    new_counts = [after.count([text]) for text in held_out]
    n_before = sum(counts[text].total() for text in held_out)
    n_after = sum(count.total() for count in new_counts)
    return UnseenReport(
        n_texts=len(held_out),
        unchanged=sum(_same(before, after, text, kept) for text in held_out) / len(held_out),
        unknown=sum(count[after.unknown] for count in new_counts) / max(1, n_after),
        unknown_before=sum(counts[t][before.unknown] for t in held_out) / max(1, n_before),
        growth=n_after / max(1, n_before),
    )


def _is_held_out(text: str) -> bool:
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    return digest[0] % HELD_OUT == 0


def _cut_model(checkpoint: Checkpoint, kept: Sequence[int], tokenizer: Path) -> Checkpoint:
    """A copy of the model with the kept rows of its embeddings."""
    new = {old: number for number, old in enumerate(kept)}
    section = checkpoint.section
    model = copy.deepcopy(checkpoint.model)
    inner = transformers_part(model)
    old = inner.get_input_embeddings()
    if kept[-1] >= old.num_embeddings:
        raise ConfigError(
            f"the tokenizer knows {kept[-1] + 1} pieces, the model {old.num_embeddings}",
            hint="take the tokenizer that belongs to the model",
        )
    padding = None if old.padding_idx is None else new.get(old.padding_idx)
    if _counts_positions_from_padding(inner) and padding != old.padding_idx:
        raise ConfigError(
            f"the vocabulary cannot be trimmed: positions of a {inner.config.model_type} model "
            "are counted from the padding's id, which would change",
            hint="export without trimming",
        )
    table = nn.Embedding(len(kept), old.embedding_dim, padding_idx=padding)
    with torch.no_grad():
        table.weight.copy_(old.weight[torch.tensor(kept)])
    inner.set_input_embeddings(table)
    inner.config.vocab_size = len(kept)
    for key in CONTROL_KEYS:
        value = getattr(inner.config, key, None)
        if isinstance(value, int):
            setattr(inner.config, key, new.get(value))
    separator = section.separator_id
    changes: dict[str, Any] = {
        "pad_id": new.get(section.pad_id, 0),
        "separator_id": new[separator] if separator >= 0 else separator,
    }
    if separator >= 0:
        model.separator_id = changes["separator_id"]
    section = section.model_copy(update=changes)
    return Checkpoint(model.eval(), section, tokenizer, checkpoint.label_vectors)


def _counts_positions_from_padding(model: Any) -> bool:
    embeddings = getattr(model.base_model, "embeddings", None)
    return hasattr(embeddings, "create_position_ids_from_input_ids")
