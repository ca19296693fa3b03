"""What more candidates and more instructions cost: this design against two joint ones, in one run.

    .venv/bin/python benchmarks/candidates.py BUNDLE --out benchmarks/results/candidates.json

One encoder graph (the bundle's own) does all the reading, so that only the designs differ:

- *prepared*: the text is read alone, candidates come from the cache (this project);
- *prepared, first call*: the same, with nothing in the cache;
- *joint*: all candidates stand before the text in one row (GLiClass, UTC), read together;
- *cross*: a row for each candidate with the text (a cross-encoder), in batches of 32.

The joint designs are charged their reading alone: no head, no decoding. A row longer than the
model's places cannot be read and has no figure. Times are medians of one text at a time on all
threads, the designs in turn. What more candidates and more instructions cost this design is
measured apart, the counts in turn: a cross-encoder's rows leave cold caches behind, and whoever
comes next pays for them.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.request import Question, Request
from instructrec_deploy.core.wordings import find_family
from instructrec_deploy.export.samples import ENGLISH
from instructrec_deploy.runtime.engine import pad_rows
from instructrec_deploy.runtime.predictor import Predictor

COUNTS = (2, 5, 10, 20, 40, 77)
FAMILIES = ("intent-banking", "sentiment", "emotion", "offensive", "urgency")
CROSS_ROWS = 32
MAX_PLACES = 512  # of MiniLM and of e5


def labels_of(family: str, n: int = 0) -> list[str]:
    """Candidates of a family that describes its labels."""
    found = find_family(family)
    labels = list(found.en.descriptions or found.zh.descriptions)
    return [label for label in labels if label.isascii()][: n or None]


def instruction_of(family: str, n: int = 0) -> Instruction:
    """The family's default wording with so many of its labels."""
    return Instruction.of(find_family(family).en.wordings[0], labels_of(family, n))


class Designs:
    """Ways to answer one text, over one encoder."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._pipeline = predictor.pipeline
        self._engine = predictor.pipeline.engine
        self._tokenizer = predictor.pipeline.tokenizer

    def prepared(self, text: str, instructions: Sequence[Instruction]) -> None:
        """One request, whatever it asks."""
        questions = tuple(Question(instruction=one) for one in instructions)
        self._predictor.predict_requests([Request(text, questions)])

    def first_call(self, text: str, instructions: Sequence[Instruction]) -> None:
        """The instruction is made anew, as nobody ever asked it."""
        for one in instructions:
            fresh = Instruction.of(f"{one.text} ({time.perf_counter_ns()})", one.labels)
            self.prepared(text, [fresh])

    def joint(self, text: str, instructions: Sequence[Instruction]) -> None:
        """Instruction and candidates in front of the text, a row for each instruction."""
        for one in instructions:
            words = " ; ".join(one.labels)
            self._read([f"{one.text} {words} : {text}"])

    def cross(self, text: str, instructions: Sequence[Instruction]) -> None:
        """A row for each candidate."""
        rows = [f"{one.text} {label} : {text}" for one in instructions for label in one.labels]
        for start in range(0, len(rows), CROSS_ROWS):
            self._read(rows[start : start + CROSS_ROWS])

    def n_tokens(self, text: str, one: Instruction) -> int:
        """Of the joint row, whole."""
        windows = self._tokenizer.encode_windows(f"{one.text} {' ; '.join(one.labels)} : {text}")
        return len({place for w in windows for place in w.offsets}) + 2

    def _read(self, rows: Sequence[str]) -> None:
        """Tokenize and encode; a long row whole, its ids joined from windows."""
        ids = [self._whole(row) for row in rows]
        self._engine.encode(*pad_rows(ids, self._engine.model.pad_id))

    def _whole(self, row: str) -> list[int]:
        (encoded,) = self._tokenizer.encode_texts([row], use_offsets=False)
        if not encoded.truncated:
            return encoded.ids
        seen: dict[tuple[int, int], int] = {}
        for window in self._tokenizer.encode_windows(row):
            seen |= {
                place: token
                for place, token in zip(window.offsets, window.ids, strict=True)
                if place[1] > place[0]
            }
        head, tail = self._tokenizer.frame
        return [*head, *(token for _, token in sorted(seen.items())), *tail][:MAX_PLACES]


def timed(ways: dict[str, Callable[[], None]], n_rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each way, in turn, after one that is not counted."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for run in ways.values():
        run()
    for _ in range(n_rounds):
        for name, run in ways.items():
            begun = time.perf_counter()
            run()
            spent[name].append(1000 * (time.perf_counter() - begun))
    return spent


def line(designs: Designs, instructions: Sequence[Instruction], n_rounds: int) -> dict[str, Any]:
    """Every design on the same texts: the median over texts of each text's median."""
    designs_by_name = {"prepared": designs.prepared}
    if len(instructions) == 1:
        designs_by_name["prepared, first call"] = designs.first_call
    longest = max(designs.n_tokens(text, one) for text in ENGLISH for one in instructions)
    if longest <= MAX_PLACES:
        designs_by_name["joint"] = designs.joint
    designs_by_name["cross"] = designs.cross
    medians: dict[str, list[float]] = {name: [] for name in designs_by_name}
    for text in ENGLISH:
        ways = {name: partial(way, text, instructions) for name, way in designs_by_name.items()}
        for name, spent in timed(ways, max(1, n_rounds // len(ENGLISH))).items():
            medians[name].append(statistics.median(spent))
    told = {name: {"ms": round(statistics.median(found), 2)} for name, found in medians.items()}
    return {**told, "joint_tokens": longest}


def against(
    designs: Designs, sets: dict[str, list[list[Instruction]]], base: str, n_rounds: int
) -> dict[str, float]:
    """Prepared sets against one of them: the median over rounds of the ratio of their times.

    Args:
        sets: by name, lists of what one request asks; of several the mean time counts.
    """
    ratios: dict[str, list[float]] = {name: [] for name in sets}
    for text in ENGLISH:
        ways = {
            f"{name} {number}": partial(designs.prepared, text, asked)
            for name, requests in sets.items()
            for number, asked in enumerate(requests)
        }
        spent = timed(ways, max(1, n_rounds // len(ENGLISH)))
        for round_ in zip(*spent.values(), strict=True):
            times = dict(zip(ways, round_, strict=True))
            means = {
                name: statistics.fmean(times[f"{name} {number}"] for number in range(len(requests)))
                for name, requests in sets.items()
            }
            for name, mean in means.items():
                ratios[name].append(mean / means[base])
    return {name: round(statistics.median(found), 2) for name, found in ratios.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=80)
    args = parser.parse_args()
    with Predictor(args.bundle, guard=False) as predictor:
        designs = Designs(predictor)
        counts = {
            str(n): line(designs, [instruction_of("intent-banking", n)], args.rounds)
            for n in COUNTS
        }
        one = {f: line(designs, [instruction_of(f)], args.rounds) for f in FAMILIES}
        five = line(designs, [instruction_of(family) for family in FAMILIES], args.rounds)
        by_count = {str(n): [[instruction_of("intent-banking", n)]] for n in COUNTS}
        ratios = against(designs, by_count, "2", 4 * args.rounds)
        asked = [instruction_of(family) for family in FAMILIES]
        by_number = {"one": [[single] for single in asked], "five": [asked]}
        five_ratio = against(designs, by_number, "one", 4 * args.rounds)["five"]
        model = predictor.bundle.manifest.model
    result = {
        "machine": platform.processor() or platform.machine(),
        "base": model.base,
        "precision": model.precision,
        "candidates": counts,
        "prepared_against_2": ratios,
        "one_instruction": one,
        "five_instructions": five,
        "five_against_one": five_ratio,
    }
    args.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
