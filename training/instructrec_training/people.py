"""Made-up messages with names of persons, organizations and addresses, to learn to find them.

    python -m instructrec_training.people --out training/instructrec_training/data/people

writes `en_names.jsonl` and `zh_names.jsonl` beside the parts that they are made of: the same rows
for the same parts. Test rows have carriers, names and streets of their own.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

PARTS = Path(__file__).parent / "data" / "people"
HELD_BACK = "|"  # before carriers of test rows
N_ROWS = 9  # of each carrier
TEST_SHARE = 4  # one of so many names and streets is for test rows alone
SOURCE = "written for this project"
_SLOT = re.compile(r"\{([^}]+)\}")

Split = Literal["train", "val", "test"]
Parts = dict[str, Any]  # words of a kind as one string; `carriers` and `plain` are lists
Fill = dict[str, Callable[[], str]]  # by slot: makes a value


def make_rows(lang: str, parts: Parts, *, seed: int = 1) -> list[dict[str, Any]]:
    """All rows of a language, in the form of `ner` rows (docs/evaluation.md); no text twice."""
    rng = random.Random(f"{lang}-{seed}")
    fill = {"en": _english, "zh": _chinese}[lang]
    rows = []
    carriers = [(carrier, N_ROWS) for carrier in parts["carriers"]]
    carriers += [(plain, 1) for plain in parts["plain"]]
    for number, (carrier, n_rows) in enumerate(carriers):
        split: Split = "val" if number % 10 == 9 else "train"
        if carrier.startswith(HELD_BACK):
            split, n_rows = "test", (n_rows + 1) // 2
        for _ in range(n_rows):
            text = carrier.removeprefix(HELD_BACK)
            if split == "train" and rng.random() < 0.3:  # longer texts, too
                other = rng.choice([one for one, _ in carriers if not one.startswith(HELD_BACK)])
                text = f"{text}{'' if lang == 'zh' else ' '}{other}"
            rows.append(_filled(text, fill(parts, split, rng)) | {"split": split})
    rows = list({row["text"].casefold(): row for row in reversed(rows)}.values())[::-1]
    types = sorted({span["type"] for row in rows for span in row["target"]})
    dataset = f"people_{lang}"
    head = {"task": "pii", "dataset": dataset, "lang": lang}
    return [
        {**head, "id": f"{dataset}-{i}", **row, "types": types, "source": SOURCE}
        for i, row in enumerate(rows, 1)
    ]


def _filled(carrier: str, fill: Fill) -> dict[str, Any]:
    text, target, done = "", [], 0
    for slot in _SLOT.finditer(carrier):
        text += carrier[done : slot.start()]
        value = fill[slot[1]]()
        target.append(
            {"type": slot[1], "start": len(text), "end": len(text) + len(value), "text": value}
        )
        text += value
        done = slot.end()
    return {"text": text + carrier[done:], "target": target}


def _kept(values: Sequence[str], split: Split) -> list[str]:
    """Those that rows of a split are made of."""
    is_test = split == "test"
    return [v for i, v in enumerate(values) if (i % TEST_SHARE == TEST_SHARE - 1) == is_test]


def _chinese(parts: Parts, split: Split, rng: random.Random) -> Fill:
    def words(name: str) -> list[str]:
        return str(parts[name]).split()

    given, roads, estates, brands, orgs = (
        _kept(words(name), split) for name in ("given", "roads", "estates", "brands", "orgs")
    )
    surnames, cities, districts, tails = map(
        words, ("surnames", "cities", "districts", "org_tails")
    )

    def person() -> str:
        common = rng.random() < 0.3  # a third of all Chinese has one of few names
        return rng.choice(surnames[:8] if common else surnames) + rng.choice(given)

    def organization() -> str:
        if rng.random() < 0.5:
            return rng.choice(["", rng.choice(cities)[:-1]]) + rng.choice(orgs)
        city = rng.choice(["", rng.choice(cities)[:-1], rng.choice(cities)])
        return city + rng.choice(brands) + rng.choice(tails)

    def address() -> str:
        head = rng.choice(["", rng.choice(cities)]) + rng.choice(["", rng.choice(districts)])
        if rng.random() < 0.5:
            return head + rng.choice(roads) + rng.choice(["", f"{rng.randint(1, 999)}号"])
        flat = f"{rng.randint(1, 30)}栋{rng.randint(1, 6)}单元{rng.randint(101, 3205)}室"
        return head + rng.choice(estates) + rng.choice(["", f"{rng.randint(1, 30)}号楼", flat])

    return {"人名": person, "机构": organization, "地址": address}


def _english(parts: Parts, split: Split, rng: random.Random) -> Fill:
    first, last = (_kept(str(parts[name]).split(), split) for name in ("first", "last"))

    def lines(name: str) -> list[str]:
        return str(parts[name]).split("|")

    streets, brands = (_kept(lines(name), split) for name in ("streets", "brands"))
    towns, tails = map(lines, ("towns", "org_tails"))

    def person() -> str:
        name = f"{rng.choice(first)} {rng.choice(last)}"
        form = rng.random()
        if form < 0.15:
            name = name.split(" ", 1)[0]
        elif form < 0.2:
            name = f"{rng.choice(first)} {rng.choice('ABCDEFGHJKLMNPRSTW')}. {rng.choice(last)}"
        elif form < 0.28:
            name = name.lower()
        elif form < 0.31:
            name = name.upper()
        return name.replace("-", " ") if rng.random() < 0.3 else name

    def organization() -> str:
        return f"{rng.choice(brands)} {rng.choice(tails)}"

    def address() -> str:
        number = str(rng.randint(1, 999))
        street = rng.choice(streets)
        line = rng.choice([f"{number} {street}", f"{street} {number}", street])
        line = rng.choice(["", "", f"Flat {rng.randint(1, 60)}, ", f"Apt {number}, "]) + line
        town = rng.choice(["", f", {rng.choice(towns)}"])
        return line + town + rng.choice(["", f" {rng.randint(10000, 99999)}" if town else ""])

    return {"person": person, "organization": organization, "street address": address}


def main() -> None:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--out", type=Path, default=PARTS)
    out: Path = parser.parse_args().out
    for lang in ("en", "zh"):
        parts = tomllib.loads((PARTS / f"{lang}.toml").read_text(encoding="utf-8"))
        rows = [json.dumps(row, ensure_ascii=False) + "\n" for row in make_rows(lang, parts)]
        (out / f"{lang}_names.jsonl").write_text("".join(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
