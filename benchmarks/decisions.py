"""The figures of docs/adr/0006-decisions.md: when nothing fits, and any of several labels.

    python benchmarks/decisions.py --data-root DATA --out benchmarks/results/decisions.json

Frozen encoders on training and validation rows of clinc105, tnews, CrossNER and Weibo NER; no test
row is read. DATA holds `classification/*.jsonl.gz` and `ner/*.jsonl.gz` with `text`, `target` and
`split`; targets of `ner` rows are lists of `{type, start, end}`. About 5 minutes of one core.

- fit: how well does a score tell texts that fit some label from texts that fit none? AUROC of
  validation rows with a label against rows of clinc105's "out of scope", and against rows of a
  fifth of the labels that was held back from the fit (5 folds, mean).
- pairs: how well does a score tell right (text, candidate) pairs from wrong ones, untuned? AUROC
  over all pairs.
- thresholds: F1 of "which types of names occur in the text", by logistic regression, thresholds
  fitted on one half of the validation rows and measured on the other (20 random halves, mean).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.multiclass import OneVsRestClassifier
from torch import Tensor

from instructrec_deploy.core.example import Example
from instructrec_deploy.evaluation.reader import read_examples
from instructrec_deploy.models.checkpoint import build_checkpoint
from instructrec_deploy.models.instruction_encoder import INITIAL_SCALE, InstructionEncoder
from instructrec_deploy.text.tokenizer import TextTokenizer
from instructrec_training.calibrate import fit_platt, fit_temperature, fit_thresholds
from instructrec_training.data import pad
from instructrec_training.probe import fit_probe

STRANGE = "out of scope"
N_FOLDS = 5
N_HALVES = 20
N_PAIR_TEXTS = 400
SHRINKS = (0.0, 5.0, 20.0, 1e9)
INTENT = "Which intent does this customer have?"
TYPES = "Which kinds of names occur in the text?"
FIT_SETS = (
    ("classification/clinc105", "minilm", INTENT),
    ("classification/tnews", "e5-enzh", "这条新闻属于哪个类别？"),
)
PAIR_SETS = (
    ("classification/clinc105", "minilm", INTENT),
    ("ner/crossner_politics", "minilm", TYPES),
    ("classification/clinc105", "e5-enzh", INTENT),
    ("classification/tnews", "e5-enzh", "这条新闻属于哪个类别？"),
    ("ner/weibo", "e5-enzh", "文中提到了哪些类型的名称？"),
)
THRESHOLD_SETS = (
    ("ner/crossner_music", "minilm"),
    ("ner/crossner_science", "minilm"),
    ("ner/crossner_politics", "minilm"),
    ("ner/weibo", "e5-enzh"),
)


class Frozen:
    """A pretrained encoder as it comes."""

    def __init__(self, base: str, work: Path) -> None:
        self._checkpoint = build_checkpoint(
            base, kind="instruction-encoder", work=work, max_tokens=64, use_fusion=False
        )
        section = self._checkpoint.section
        self._section = section
        self._tokenizer = TextTokenizer(
            self._checkpoint.tokenizer_path,
            max_tokens=section.max_tokens,
            prefix=section.text_prefix,
        )
        model = self._checkpoint.model.eval()
        assert isinstance(model, InstructionEncoder)
        self._model = model

    @torch.inference_mode()
    def texts(self, texts: Sequence[str]) -> Tensor:
        """[N, H], L2-normalized."""
        rows = [encoded.ids for encoded in self._tokenizer.encode_texts(list(texts))]
        order = sorted(range(len(rows)), key=lambda index: len(rows[index]))
        found = torch.zeros(len(rows), self._section.hidden_size)
        for start in range(0, len(order), 128):
            batch = order[start : start + 128]
            found[batch] = self._model.encode(*pad([rows[i] for i in batch], self._section.pad_id))[
                1
            ]
        return found

    @torch.inference_mode()
    def candidates(self, instruction: str, labels: Sequence[str]) -> Tensor:
        """[C, H], L2-normalized."""
        weight = self._section.instruction_weight
        rows = self._tokenizer.encode_candidates(instruction, labels, instruction_weight=weight)
        ids, mask = pad([ids for ids, _ in rows], self._section.pad_id)
        weights = torch.zeros(ids.shape)
        for index, (_, own) in enumerate(rows):
            weights[index, : len(own)] = torch.tensor(own)
        return self._model.encode(ids, mask, weights)[1]


def scores_of_fit(logits: Tensor, temperature: float) -> dict[str, Tensor]:
    """Ways to say how well the best candidate fits, [N] each; larger is better."""
    scaled = logits / temperature
    shares = torch.softmax(scaled, 1).topk(2, 1).values
    best = logits.topk(2, 1).values
    return {
        "best probability": shares[:, 0],
        "margin of probabilities": shares[:, 0] - shares[:, 1],
        "margin of logits": best[:, 0] - best[:, 1],
        "best logit": best[:, 0],
        "energy (logsumexp)": torch.logsumexp(scaled, 1),
        "best logit over the mean": best[:, 0] - logits.mean(1),
    }


def compare_fit(
    texts: Tensor, vectors: Tensor, names: Sequence[str], rows: Sequence[Example]
) -> dict[str, Any]:
    """AUROC of each score, untuned ("cosine") and with fitted label vectors ("regression")."""
    is_train = torch.tensor([row.split == "train" for row in rows])
    label = torch.tensor([names.index(row.target) for row in rows])
    own = [n for n, name in enumerate(names) if name != STRANGE]
    folds = np.array_split(np.random.default_rng(0).permutation(own), N_FOLDS)
    cases = {"held-back labels": [torch.isin(label, torch.tensor(fold)) for fold in folds]}
    if STRANGE in names:
        cases[STRANGE] = [label == names.index(STRANGE)]
    found: dict[str, Any] = {}
    for case, outsides in cases.items():
        for way in ("cosine", "regression"):
            by_score: dict[str, list[float]] = {}
            accuracies = []
            for outside in outsides:
                kept = [n for n in own if not bool(outside[label == n].any())]
                place = torch.full((len(names),), -1)
                place[kept] = torch.arange(len(kept))
                fits = place[label] >= 0
                train, valid = is_train & fits, ~is_train & fits
                known = INITIAL_SCALE * texts @ vectors[kept].T
                if way == "regression":  # as `probe = true` starts a run
                    weight, _ = fit_probe(
                        texts[train],
                        place[label[train]],
                        n_labels=len(kept),
                        inverse_l2=1.0,
                        offsets=known[train],
                        has_bias=False,
                    )
                    known = known + texts @ weight.T
                targets = place[label[valid]]
                temperature = fit_temperature(known[valid], targets)
                accuracies.append(float((known[valid].argmax(1) == targets).float().mean()))
                is_in = [1] * int(valid.sum()) + [0] * int(outside.sum())
                logits = torch.cat([known[valid], known[outside]])
                for name, score in scores_of_fit(logits, temperature).items():
                    by_score.setdefault(name, []).append(roc_auc_score(is_in, score.numpy()))
            found[f"{case}, {way}"] = {
                "n_outside": int(sum(int(outside.sum()) for outside in outsides)),
                "accuracy": round(float(np.mean(accuracies)), 4),
                "auroc": {name: round(float(np.mean(v)), 4) for name, v in by_score.items()},
            }
    return found


def right_labels(rows: Sequence[Example]) -> tuple[list[str], Tensor]:
    """All labels, and [N, L], 1 where a label is right."""
    sets = [
        {row.target} if isinstance(row.target, str) else {span["type"] for span in row.target}
        for row in rows
    ]
    labels = sorted(set().union(*sets) - {STRANGE})
    return labels, torch.tensor([[float(label in found) for label in labels] for found in sets])


def compare_pairs(encoder: Frozen, rows: Sequence[Example], instruction: str) -> dict[str, Any]:
    """AUROC of a pair's logit alone, and of its odds against the other candidates."""
    labels, targets = right_labels(rows)
    logits = (
        INITIAL_SCALE
        * encoder.texts([r.text for r in rows])
        @ encoder.candidates(instruction, labels).T
    )
    ways = {
        "logit": logits,
        "against the others": torch.softmax(logits, 1),
        "over the mean": logits - logits.mean(1, keepdim=True),
    }
    right = targets.flatten().numpy()
    return {
        "n_labels": len(labels),
        "right_per_text": round(float(targets.sum(1).mean()), 2),
        "mean_logit_right": round(float(logits[targets > 0].mean()), 2),
        "mean_logit_wrong": round(float(logits[targets == 0].mean()), 2),
        "auroc": {n: round(roc_auc_score(right, s.flatten().numpy()), 4) for n, s in ways.items()},
    }


def compare_thresholds(encoder: Frozen, rows: Sequence[Example]) -> dict[str, Any]:
    """Macro and micro F1 by how the thresholds were found."""
    labels, targets = right_labels(rows)
    texts = INITIAL_SCALE * encoder.texts([row.text for row in rows])
    is_train = torch.tensor([row.split == "train" for row in rows])
    model = OneVsRestClassifier(LogisticRegression(C=10.0, max_iter=500))
    model.fit(texts[is_train].numpy(), targets[is_train].numpy().astype(int))
    logits = torch.tensor(model.decision_function(texts[~is_train].numpy())).float()
    targets = targets[~is_train]
    found: dict[str, list[tuple[float, float]]] = {}
    for seed in range(N_HALVES):
        order = torch.randperm(len(logits), generator=torch.Generator().manual_seed(seed))
        fitted, rest = order[: len(order) // 2], order[len(order) // 2 :]
        temperature, offset = fit_platt(logits[fitted], targets[fitted])
        shares = torch.sigmoid((logits - offset) / temperature)
        ways: dict[str, Tensor] = {"0.5 for all": torch.full((len(labels),), 0.5)}
        for shrink in SHRINKS:
            common, own = fit_thresholds(shares[fitted], targets[fitted], labels, shrink=shrink)
            name = "one for all" if shrink == SHRINKS[-1] else f"own, shrink {shrink:g}"
            ways[name] = torch.tensor([own.get(label, common) for label in labels])
        for name, levels in ways.items():
            found.setdefault(name, []).append(_f1(shares[rest] >= levels, targets[rest] > 0))
    return {
        "n_labels": len(labels),
        "n_train": int(is_train.sum()),
        "n_validation": len(logits),
        "f1": {
            name: dict(zip(("macro", "micro"), np.mean(v, axis=0).round(4).tolist(), strict=True))
            for name, v in found.items()
        },
    }


def _f1(chosen: Tensor, right: Tensor) -> tuple[float, float]:
    hits, n_chosen, n_right = (m.sum(0).double() for m in (chosen & right, chosen, right))
    each = 2 * hits / (n_chosen + n_right).clamp_min(1)
    return float(each[n_right > 0].mean()), float(2 * hits.sum() / (n_chosen + n_right).sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        encoders: dict[str, Frozen] = {}

        def encoder(base: str) -> Frozen:
            if base not in encoders:
                encoders[base] = Frozen(base, Path(folder) / base)
            return encoders[base]

        def rows(name: str) -> list[Example]:
            read = read_examples(options.data_root / f"{name}.jsonl.gz")
            return [row for row in read if row.split in ("train", "val")]

        def some(name: str) -> list[Example]:
            found = [row for row in rows(name) if row.target != STRANGE]
            order = np.random.default_rng(0).permutation(len(found))[:N_PAIR_TEXTS]
            return [found[index] for index in order]

        def fit(name: str, base: str, words: str) -> dict[str, Any]:
            read = rows(name)
            names = sorted({row.target for row in read})
            model = encoder(base)
            texts = model.texts([row.text for row in read])
            return compare_fit(texts, model.candidates(words, names), names, read)

        report: Mapping[str, Any] = {
            "fit": _all(FIT_SETS, fit),
            "pairs": _all(PAIR_SETS, lambda n, b, w: compare_pairs(encoder(b), some(n), w)),
            "thresholds": _all(
                THRESHOLD_SETS, lambda n, b: compare_thresholds(encoder(b), rows(n))
            ),
        }
    text = json.dumps(report, indent=2, ensure_ascii=False)
    if options.out:
        options.out.write_text(text + "\n", encoding="utf-8")
    print(text)


def _all(sets: Sequence[tuple[str, ...]], measure: Callable[..., Any]) -> dict[str, Any]:
    return {f"{name}, {base}": measure(name, base, *words) for name, base, *words in sets}


if __name__ == "__main__":
    main()
