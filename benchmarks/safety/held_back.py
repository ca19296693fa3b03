"""Personal data in texts that were written apart from the recognizers: F1, hits, disguises, leaks.

    PYTHONPATH=. .venv/bin/python benchmarks/safety/held_back.py benchmarks/safety/lists/*.txt \\
        --out benchmarks/results/held_back.json

A list has a carrier in each line, in sections: `[found en]`, `[found zh]`, `[left alone en]`,
`[left alone zh]`, `[disguised]`. `{kind}` stands for a made-up value (`values.py`), and
`{kind:disguise}` for that value in disguise. What counts as found and as leaked:
`evaluation/safety.py`; a token or a password in a URL may be found as URL or as SECRET.
"""

from __future__ import annotations

import argparse
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.safety.cases import Case
from benchmarks.safety.measure import Filter, Finding, is_masked_whole, ours, scores, write_result
from benchmarks.safety.values import HARMLESS, VALUES
from tests.unit.safety import made_up as made

SEED = 20261127
ROUNDS = 5
MAX_NAMED = 40  # carriers named for each fault; all are made up
_PLACE = re.compile(r"\{([a-z]\w*)(?::(\w+))?\}")
_HAN = str.maketrans("0123456789", "零一二三四五六七八九")
_CIRCLED = str.maketrans("0123456789", "⓪①②③④⑤⑥⑦⑧⑨")


def _mixed(value: str) -> str:
    """Every second digit in Han."""
    return "".join(char.translate(_HAN) if at % 2 else char for at, char in enumerate(value))


def _at_dot(at: str, dot: str) -> Callable[[str], str]:
    return lambda value: value.replace(".", dot).replace("@", at)


DISGUISES: dict[str, Callable[[str], str]] = {
    "zero": "\u200b".join,
    "full": made.full_width,
    "spaced": " ".join,
    "dots": ".".join,
    "dashed": "-".join,
    "slashes": "/".join,
    "han": lambda value: value.translate(_HAN),
    "circled": lambda value: value.translate(_CIRCLED),
    "mixed": _mixed,
    "at_dot": _at_dot(" at ", " dot "),
    "at_dot_brackets": _at_dot("[at]", "[dot]"),
    "at_dot_parens": _at_dot(" (at) ", " (dot) "),
    "at_zh": _at_dot("艾特", "点"),
    "dot_words": _at_dot("@", " dot "),
}


def read_list(path: Path) -> dict[str, list[str]]:
    """Carriers by section."""
    sections: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in path.read_text("utf-8").splitlines():
        if line.startswith("[") and line.endswith("]"):
            lines = sections.setdefault(line[1:-1], [])
        elif line and not line.startswith("# "):
            lines.append(line.replace("\\n", "\n"))
    return sections


def filled(carrier: str, rng: random.Random, *, lang: str, is_harmless: bool = False) -> Case:
    """A carrier with values in its places."""
    text, values, behind = "", [], 0
    for place in _PLACE.finditer(carrier):
        text += carrier[behind : place.start()]
        kind, disguise = place.groups()
        maker = HARMLESS[kind] if is_harmless else VALUES[kind][1]
        value = DISGUISES.get(disguise or "", str)(maker(rng))
        if not is_harmless:
            values.append((VALUES[kind][0], len(text), len(text) + len(value)))
        text += value
        behind = place.end()
    return Case(text + carrier[behind:], lang, tuple(values))


def named(case: Case, found: list[Finding]) -> list[Finding]:
    """Findings by the case's own word where a token in a URL may have either."""
    urls = [(start, end) for kind, start, end in case.values if kind == "URL"]
    return [
        ("URL", start, end)
        if kind == "SECRET" and any(start < stop and begin < end for begin, stop in urls)
        else (kind, start, end)
        for kind, start, end in found
    ]


def figures(find: Filter, sections: dict[str, list[str]], n_rounds: int) -> dict[str, Any]:
    """All figures of a list; `missed`, `wrong` and `hit` name carriers with how often."""
    result: dict[str, Any] = {}
    rng = random.Random(SEED)
    for section, carriers in sections.items():
        what, _, lang = section.rpartition(" ")
        is_harmless = what == "left alone"
        lines = [line for line in carriers for _ in range(n_rounds)]
        cases = [filled(line, rng, lang=lang, is_harmless=is_harmless) for line in lines]
        found = [*map(named, cases, find([case.text for case in cases]))]
        about: dict[str, Any] = {"carriers": len(carriers), "n": len(cases)}
        if is_harmless:
            hit = [bool(some) for some in found]
            about["hit"] = round(sum(hit) / len(hit), 4)
            about["hit_carriers"] = _most(lines, hit)
        elif section == "disguised":
            whole = [*map(is_masked_whole, cases, found)]
            about["found"] = scores(cases, found)["recall"]
            about["masked_whole"] = round(sum(whole) / len(whole), 4)
            about["missed"] = _most(lines, [not is_whole for is_whole in whole])
        else:
            about |= scores(cases, found)
            pairs = [*zip(cases, found, strict=True)]
            about["missed"] = _most(lines, [not _has_all(*pair) for pair in pairs])
            about["wrong"] = _most(lines, [len(some) > len(case.values) for case, some in pairs])
        result[section] = about
    return result


def _has_all(case: Case, found: list[Finding]) -> bool:
    """Whether a finding of its type overlaps each value."""
    return all(
        any(kind == name and start < stop and begin < end for name, begin, stop in found)
        for kind, start, end in case.values
    )


def _most(lines: list[str], is_faulty: list[bool]) -> dict[str, int]:
    """The carriers at fault, by how often."""
    counts = Counter(line for line, is_one in zip(lines, is_faulty, strict=True) if is_one)
    return dict(counts.most_common(MAX_NAMED))


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("lists", type=Path, nargs="+")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="values for each carrier")
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    find = ours()
    result: dict[str, Any] = {"seed": SEED, "rounds": options.rounds}
    result |= {path.stem: figures(find, read_list(path), options.rounds) for path in options.lists}
    write_result(result, options.out)


if __name__ == "__main__":
    main()
