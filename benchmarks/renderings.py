"""What a frozen encoder makes of several renderings of marks, histories and pairs (docs/adr/0005).

    .venv/bin/python benchmarks/renderings.py relation history pair --data-root DATA \\
        --out benchmarks/results/renderings.json [--base minilm]

Train and validation rows alone, one thread, float32. `relation`: accuracy of a logistic regression
on the pooled vectors of 1600 training rows, on all validation rows. `history`: HR@10 and HR@1 of
the liked film among 100 by cosine (scale 20) plus weight * log(1 + ratings). `pair`: five-fold
accuracy of "are these two of one intent?", 1400 pairs drawn from the training rows. DATA holds
`relation/fewrel_wiki16`, `recommendation/movielens_small`, `recommendation/movielens_items` and
`classification/banking77`, each `.jsonl.gz`, rows as in the README.
"""

from __future__ import annotations

import argparse
import json
import random
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score

from instructrec_deploy.core.example import Example
from instructrec_deploy.evaluation.reader import read_examples
from instructrec_deploy.evaluation.requests import candidates_of, passage_of, read_items
from instructrec_deploy.models.checkpoint import build_checkpoint
from instructrec_deploy.text.render import Passage, item_words, render, render_history
from instructrec_deploy.text.tokenizer import TextTokenizer

Floats = npt.NDArray[np.float32]
SCALE = 20.0
N_RELATIONS, N_PAIRS = 1600, 1400
PRIOR_WEIGHTS = (0.0, 0.5, 1.0)


class Frozen:
    """A pretrained encoder as it is."""

    def __init__(self, base: str) -> None:
        with tempfile.TemporaryDirectory() as work:
            self._checkpoint = build_checkpoint(base, kind="instruction-encoder", work=Path(work))
            section = self._checkpoint.section
            self._tokenizer = TextTokenizer(
                self._checkpoint.tokenizer_path,
                max_tokens=section.max_tokens,
                prefix=section.text_prefix,
            )

    def texts(self, passages: Sequence[Passage]) -> Floats:
        """[B, H] pooled vectors."""
        return self._pool([(e.ids, [1.0] * len(e.ids)) for e in self._encode(passages)])

    def candidates(self, instruction: str, words: Sequence[str]) -> Floats:
        """[C, H] vectors of candidates behind their instruction."""
        weight = self._checkpoint.section.instruction_weight
        return self._pool(
            self._tokenizer.encode_candidates(instruction, words, instruction_weight=weight)
        )

    def _encode(self, passages: Sequence[Passage]) -> list[Any]:
        return list(self._tokenizer.encode_passages(passages, use_offsets=False))

    @torch.no_grad()
    def _pool(self, rows: Sequence[tuple[list[int], list[float]]]) -> Floats:
        order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
        found = np.empty((len(rows), self._checkpoint.section.hidden_size), np.float32)
        for start in range(0, len(order), 32):
            part = order[start : start + 32]
            ids, mask, weights = (
                torch.nn.utils.rnn.pad_sequence(
                    [torch.tensor(make(rows[i])) for i in part], batch_first=True
                )
                for make in (lambda r: r[0], lambda r: [1] * len(r[0]), lambda r: r[1])
            )
            found[part] = self._checkpoint.model.eval().encode(ids, mask, weights)[1].numpy()
        return found


def relation(model: Frozen, root: Path) -> dict[str, Any]:
    """Accuracy of each rendering of a head and a tail."""
    rows = read_examples(root / "relation/fewrel_wiki16.jsonl.gz", "train")
    random.Random(0).shuffle(rows)
    rows, held = rows[:N_RELATIONS], read_examples(root / "relation/fewrel_wiki16.jsonl.gz", "val")
    found = {}
    for name, make in RELATIONS.items():
        seen, unseen = (model.texts([make(row) for row in part]) for part in (rows, held))
        fitted = LogisticRegression(C=10, max_iter=300).fit(seen, [row.target for row in rows])
        found[name] = round(float(fitted.score(unseen, [row.target for row in held])), 4)
        print(f"relation: {name}: {found[name]}", flush=True)
    return {"n_train": len(rows), "n_validation": len(held), "accuracy": found}


def _named(row: Example, between: str) -> str:
    return between.join(row.extra[name]["text"] for name in ("head", "tail"))


def _signed(row: Example, signs: Sequence[tuple[str, str]]) -> str:
    text = row.text
    marks = sorted(
        ((row.extra[name], pair) for name, pair in zip(("head", "tail"), signs, strict=True)),
        key=lambda pair: -int(pair[0]["start"]),
    )
    for mark, (opening, closing) in marks:
        a, b = mark["start"], mark["end"]
        text = f"{text[:a]}{opening} {text[a:b]} {closing}{text[b:]}"
    return text


SIGNS = (("@", "@"), ("#", "#"))
RELATIONS: dict[str, Callable[[Example], Passage]] = {
    "text alone": lambda row: render(row.text),
    "A, B: text": lambda row: render(f"{_named(row, ', ')}: {row.text}"),
    "A ... B: text": lambda row: render(f"{_named(row, ' ... ')}: {row.text}"),
    "@ A @ # B #": lambda row: render(_signed(row, SIGNS)),
    "[ A ] { B }": lambda row: render(_signed(row, (("[", "]"), ("{", "}")))),
    "A, B: @ A @ # B #": lambda row: render(f"{_named(row, ', ')}: {_signed(row, SIGNS)}"),
    "chosen: A ... B: @ A @ # B #": passage_of,
}


def history(model: Frozen, root: Path) -> dict[str, Any]:
    """HR@10 and HR@1 of each rendering of ten films."""
    folder = root / "recommendation"
    items = read_items(folder / "movielens_items.jsonl.gz")
    rows = read_examples(folder / "movielens_small.jsonl.gz", "val")
    asked = [candidates_of(row, items) for row in rows]
    own = list(dict.fromkeys(candidate for row in asked for candidate in row))
    place = {candidate.label: i for i, candidate in enumerate(own)}
    vectors = model.candidates("Which film will this viewer like next?", [c.words for c in own])
    priors = np.array([c.prior for c in own])
    which = [[place[candidate.label] for candidate in candidates] for candidates in asked]

    def hits(texts: Floats, weight: float) -> dict[str, float]:
        ranks = []
        for row, text, own_places in zip(rows, texts, which, strict=True):
            scores = SCALE * vectors[own_places] @ text + weight * priors[own_places]
            ranks.append(int((scores > scores[row.target]).sum()))
        return {f"hr@{k}": round(float(np.mean(np.array(ranks) < k)), 4) for k in (10, 1)}

    nothing = np.zeros((len(rows), vectors.shape[1]), np.float32)
    found: dict[str, Any] = {"popularity alone": hits(nothing, 1.0)}
    for name, make in HISTORIES.items():
        texts = model.texts([render(make(row.extra["history"])) for row in rows])
        found[name] = {f"prior x {weight:g}": hits(texts, weight) for weight in PRIOR_WEIGHTS}
        print(f"history: {name}: {found[name]}", flush=True)
    return {"n_validation": len(rows), "found": found}


HISTORIES: dict[str, Callable[[list[Any]], str]] = {
    "titles, oldest first": lambda items: "\n".join(item["title"] for item in items),
    "titles, newest first": lambda items: "\n".join(item["title"] for item in items[::-1]),
    "titles and genres, oldest first": lambda items: "\n".join(map(item_words, items)),
    "one line, newest first": lambda items: "; ".join(map(item_words, items[::-1])),
    "chosen: titles and genres, a line each, newest first": render_history,
}


def pair(model: Frozen, root: Path) -> dict[str, Any]:
    """Accuracy of each border between two texts."""
    rng = random.Random(1)
    by_label: dict[str, list[str]] = {}
    for row in read_examples(root / "classification/banking77.jsonl.gz", "train"):
        by_label.setdefault(row.target, []).append(row.text)
    pairs = []
    for i in range(N_PAIRS):
        label, other = rng.sample(sorted(by_label), 2)
        one, same = rng.sample(by_label[label], 2)
        pairs.append((one, rng.choice(by_label[other]) if i % 2 else same))
    same_intent = [i % 2 == 0 for i in range(N_PAIRS)]
    found = {}
    for name, make in PAIRS.items():
        vectors = model.texts([make(*both) for both in pairs])
        scores = cross_val_score(LogisticRegression(C=10, max_iter=300), vectors, same_intent, cv=5)
        found[name] = round(float(scores.mean()), 4)
        print(f"pair: {name}: {found[name]}", flush=True)
    return {"n": len(pairs), "accuracy": found}


PAIRS: dict[str, Callable[[str, str], Passage]] = {
    "line break": lambda one, other: render(f"{one}\n{other}"),
    "semicolon": lambda one, other: render(f"{one} ; {other}"),
    "two bars": lambda one, other: render(f"{one} || {other}"),
    "chosen: control token": lambda one, other: render(one, text2=other),
}
PARTS: dict[str, Callable[[Frozen, Path], dict[str, Any]]] = {
    "relation": relation,
    "history": history,
    "pair": pair,
}


def main() -> None:
    """Measure the parts that are named, and write what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--base", default="minilm")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = Frozen(given.base)
    known = json.loads(given.out.read_text("utf-8")) if given.out.is_file() else {}
    for part in given.parts:
        known.setdefault(given.base, {})[part] = PARTS[part](model, given.data_root)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_text(json.dumps(known, indent=2, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    main()
