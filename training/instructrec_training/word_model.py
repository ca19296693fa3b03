"""Train the safety filter's model of disguised words and write its weights.

    python -m instructrec_training.word_model --data-root DATA [--out FILE]

Ordinary words are those of training splits that are free to ship; abusive ones are made by
`word_disguises.py`. Logistic regression on hashed n-grams by gradient steps, in numpy; the same
seed and data make the same file. DATA: the folder of data files (docs/training.md).
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from instructrec_deploy.safety import word_model
from instructrec_deploy.safety.lexicon import Lexicon
from instructrec_deploy.safety.word_forms import Candidate, candidates
from instructrec_deploy.safety.word_model import known_bits
from instructrec_deploy.text.normalize import fold, lower_in_place
from instructrec_training.word_disguises import codes, training_words

SEED = 20251127
N_DISGUISED = 4_000  # of each language
N_CODES = 4_000
N_STEPS = 150
RATE = 0.08
DECAY = 6e-5
FALSE_HITS = 3e-4  # of ordinary words that were not trained on, at the thresholds
SOURCES = (  # CC BY, BSD, MIT and Apache
    *("classification/banking77", "classification/clinc105", "dialogue/chatterbot_en"),
    *("dialogue/chatterbot_zh", "dialogue/kdconv", "dialogue/taskmaster", "safety/cold"),
    *("relation/fewrel_wiki16", "ner/crossner_politics", "ner/crossner_science"),
    *("ner/crossner_music", "instruction/alpaca_demo_en", "instruction/alpaca_demo_zh"),
)
_OFFENSIVE = "冒犯"

Floats = NDArray[np.float64]


def main() -> None:
    """Train, write, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True)
    default = Path(word_model.__file__).with_name(word_model.WEIGHTS_FILE)
    parser.add_argument("--out", type=Path, default=default)
    options = parser.parse_args()
    rng = random.Random(SEED)
    bad = abusive(rng)
    made = {word.raw for word in bad} | Lexicon().words
    good = [word for word in ordinary(options.data_root) if word.raw not in made]
    known = known_bits(word.raw for word in good)
    numbers = [word for text in codes(N_CODES, rng) for word in read(text) if word.raw not in made]
    rng.shuffle(good)
    cut = len(good) * 3 // 4
    weights, bias = fit(bad, [*good[:cut], *numbers])
    data = packed(weights, bias, good[cut:]) + known
    model = word_model.WordModel(data)
    others = [word for word in abusive(rng) if word.raw not in made]  # by the same rules
    scores = zip(others, model.scores(others), strict=True)
    found = [(word.is_han, model.is_hit(word, score)) for word, score in scores]
    options.out.write_bytes(data)
    thresholds = np.frombuffer(data[8:16], dtype="<f4")
    print(json.dumps({"disguised": len(bad), "ordinary": len(good), "bytes": len(data)}))
    for is_han, lang in enumerate(("en", "zh")):
        hits = [hit for han, hit in found if han == is_han]
        print(
            json.dumps({"lang": lang, "new": len(hits), "found": round(sum(hits) / len(hits), 3)})
        )
    print(json.dumps({"thresholds": [round(float(t), 4) for t in thresholds]}))


def read(text: str) -> list[Candidate]:
    """The candidates of a text as the filter sees it."""
    return candidates(lower_in_place(fold(text).text))


def abusive(rng: random.Random) -> list[Candidate]:
    """The candidates that are a disguised word, the whole of it."""
    return [
        word
        for text in training_words(N_DISGUISED, rng)
        for word in read(text)
        if word.end - word.start == len(text)
    ]


def ordinary(root: Path) -> list[Candidate]:
    """Each different candidate of the harmless training texts, once, in a fixed order."""
    seen: dict[tuple[str, bool], Candidate] = {}
    for source in SOURCES:
        for text in texts(root / f"{source}.jsonl.gz"):
            for word in read(text):
                seen.setdefault((word.raw, word.is_han), word)
    return [seen[key] for key in sorted(seen)]


def texts(path: Path) -> Iterator[str]:
    """The harmless texts of a file's training rows."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            if row["split"] != "train" or row.get("target") == _OFFENSIVE:
                continue
            yield from (turn["content"] for turn in row.get("messages", ()))
            yield from (row[name] for name in ("text", "instruction", "output") if row.get(name))


def fit(bad: list[Candidate], good: list[Candidate]) -> tuple[Floats, float]:
    """Weights [N_WEIGHTS] and bias; both classes count alike."""
    indexes, owners = word_model.features([*bad, *good])
    wanted = np.repeat((1.0, 0.0), (len(bad), len(good)))
    share = np.repeat((0.5 / len(bad), 0.5 / len(good)), (len(bad), len(good)))
    n = word_model.N_WEIGHTS
    weights, bias = np.zeros(n + 1), 0.0
    first, second = np.zeros(n + 1), np.zeros(n + 1)
    for step in range(1, N_STEPS + 1):
        sums = np.bincount(owners, weights=weights[indexes], minlength=len(wanted)) + bias
        error = (1 / (1 + np.exp(-np.clip(sums, -30, 30))) - wanted) * share
        gradient = np.append(
            np.bincount(indexes, weights=error[owners], minlength=n) * 1.0, error.sum()
        )
        gradient[:n] += DECAY * weights[:n]
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        moved = first / (1 - 0.9**step) / (np.sqrt(second / (1 - 0.999**step)) + 1e-9)
        weights -= RATE * moved
        bias = weights[n]
        weights[n] = bias
    return weights[:n], float(bias)


def packed(weights: Floats, bias: float, held: list[Candidate]) -> bytes:
    """The file, with thresholds that few ordinary words reach that were not trained on."""
    scale = float(np.abs(weights).max()) / 127
    small = np.round(weights / scale).astype(np.int8).tobytes()
    head = np.array([bias, scale, 0, 0], dtype="<f4").tobytes()
    model = word_model.WordModel(head + small + known_bits(()))
    thresholds = []
    for is_han in (False, True):
        scores = np.sort(model.scores([word for word in held if word.is_han == is_han]))
        index = min(len(scores) - 1, int(len(scores) * (1 - FALSE_HITS)))
        thresholds.append(max(0.5, float(scores[index]) + 1e-6 if len(scores) else 0.9))
    return np.array([bias, scale, *thresholds], dtype="<f4").tobytes() + small


if __name__ == "__main__":
    main()
