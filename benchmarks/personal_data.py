"""Personal data: structured types on presidio_synth, time of short texts and of hostile ones.

    .venv/bin/python benchmarks/personal_data.py --data-root DATA \\
        --out benchmarks/results/personal_data.json

DATA holds pii/presidio_synth.jsonl.gz. A value counts as found where a finding of its type overlaps
it; each finding serves one value. Times are processor time of the whole filter, folding, word list
and masking included, best of several rounds; hostile texts have 16,384 characters, or 16 KiB in
UTF-8 (`hostile_16kib_ms`). `linear` is the time of 1 MB by the time of 128 kB: 8
where time grows as the text does.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import time
from collections import Counter
from pathlib import Path
from typing import Any

from instructrec_deploy.safety.guard import Guard

TYPES = {
    "credit card": "CREDIT_CARD",
    "email address": "EMAIL",
    "iban code": "IBAN",
    "ip address": "IP",
    "phone number": "PHONE",
    "us ssn": "US_SSN",
}
SHORT = (
    "I lost my card, what do I do now, please help",
    "我的卡丢了，怎么办？请尽快回复我，谢谢",
    "call me at 212-555-0143 tomorrow morning",
    "电话13812345678请回电",
)
HOSTILE = ("1 ", "138 1234 5678 ", "4111 ", "a.a@a.a", "https://a", "路1号", "1·", "password: a1")
HOSTILE += ("212-555-0143 ", "110101199003078531 ", "GB82 ", "1.1.1.1 ", "12 Main St ", "一三八")
HOSTILE += (
    "1\u200b",
    "㎏",
    "fuck ",
    "f u c k ",
    "fuuuuck",
    "sh1t ",
    "我杀",
    "傻 逼 ",
    "電話",
    "аb ",
    "大道东一号",
    "@a点",
    "a艾特a点",
    "a艾特a点cn ",
    "a @ b . c ",
    "a n n @ x . i o ",
    "京 A 1 2 3 4 5 ",
)
HOSTILE_CHARS = 16_384  # and bytes
LINEAR = ("138 1234 5678 ", "路1号", "f u c k ")
LINEAR_CHARS = (131_072, 1_048_576)


def accuracy(guard: Guard, data: Path) -> dict[str, Any]:
    """Precision and recall, of all types together, and the counts of each."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in TYPES.values()}
    with gzip.open(data, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            found = list(guard.check_input(row["text"]).verdict.findings)
            for value in row["target"]:
                name = TYPES.get(value["type"])
                if name is None:
                    continue
                hit = next(
                    (
                        f
                        for f in found
                        if f.category == name and f.start < value["end"] and value["start"] < f.end
                    ),
                    None,
                )
                counts[name]["found" if hit else "missed"] += 1
                if hit:
                    found.remove(hit)
            for extra in found:
                if extra.category in counts:
                    counts[extra.category]["wrong"] += 1
    total = sum(counts.values(), Counter())
    return {
        "precision": total["found"] / max(1, total["found"] + total["wrong"]),
        "recall": total["found"] / max(1, total["found"] + total["missed"]),
        "types": {name: dict(count) for name, count in counts.items()},
    }


def seconds(guard: Guard, text: str, times: int, *, n_rounds: int = 9) -> float:
    """Processor time of one check, best of the rounds."""
    rounds = []
    for _ in range(n_rounds):
        begun = time.thread_time()
        for _ in range(times):
            guard.check_input(text)
        rounds.append((time.thread_time() - begun) / times)
    return min(rounds)


def of_bytes(piece: str, n_bytes: int) -> str:
    """A piece over and over, up to so many bytes of UTF-8."""
    size = len(piece.encode())
    return piece * (n_bytes // size)


def growth(guard: Guard, piece: str) -> float:
    """How many times as long eight times the text takes."""
    short, long = ((piece * chars)[:chars] for chars in LINEAR_CHARS)
    return seconds(guard, long, 1, n_rounds=1) / seconds(guard, short, 1, n_rounds=2)


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    guard = Guard()
    result = {
        "presidio_synth": accuracy(guard, options.data_root / "pii/presidio_synth.jsonl.gz"),
        "short_us": {text: round(seconds(guard, text, 100) * 1e6, 1) for text in SHORT},
        "hostile_16k_ms": {
            piece: round(seconds(guard, (piece * HOSTILE_CHARS)[:HOSTILE_CHARS], 1) * 1e3, 1)
            for piece in HOSTILE
        },
        "hostile_16kib_ms": {
            piece: round(seconds(guard, of_bytes(piece, HOSTILE_CHARS), 1) * 1e3, 1)
            for piece in HOSTILE
        },
        "linear": {piece: round(growth(guard, piece), 1) for piece in LINEAR},
        "machine": {
            "cpus": os.cpu_count(),
            "load_1m": round(os.getloadavg()[0], 1),
            "python": platform.python_version(),
        },
    }
    text = json.dumps(result, ensure_ascii=False, indent=2)
    print(text)
    options.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
