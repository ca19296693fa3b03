"""Cut a `tokenizer.json` to fewer pieces, so that texts made of the kept ones read as before.

Shapes: V pieces.

WordPiece takes the longest piece that fits, at each place. Where that piece is kept, it still is
the longest. Unigram takes the likeliest way to cut a text. Where its pieces are kept, no likelier
one appears: removing pieces makes none, and a character that became unknown costs ten more than
the unlikeliest piece of all, which is therefore kept, too. BPE merges step by step; its steps are
not in the pieces that come out, so it is refused.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instructrec_deploy.core.errors import ConfigError

CUTTABLE = ("WordPiece", "Unigram")
CONTINUES = "##"  # WordPiece's mark of a piece inside a word
SPACE = "▁"  # Unigram's mark of a word's beginning
MIN_SCRIPT_SHARE = 0.002  # of all characters: a script that stands in a text now and then


def read_tokenizer(path: Path) -> dict[str, Any]:
    """A tokenizer.json that can be cut.

    Raises:
        ConfigError: its pieces come from another algorithm.
    """
    raw: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    kind = raw["model"].get("type")
    if kind not in CUTTABLE or raw["model"].get("byte_fallback"):
        what = f"{kind} with byte fallback" if kind in CUTTABLE else str(kind)
        raise ConfigError(
            f"the vocabulary cannot be trimmed: its tokenizer is {what}",
            hint=f"export without trimming; {' and '.join(CUTTABLE)} can be trimmed",
        )
    return raw


def pieces_of(raw: Mapping[str, Any]) -> dict[int, str]:
    """Every piece by its id, added ones among them; ascending."""
    model = raw["model"]
    if model["type"] == "Unigram":
        found = {number: piece for number, (piece, _) in enumerate(model["vocab"])}
    else:
        found = {number: piece for piece, number in model["vocab"].items()}
    found |= {token["id"]: token["content"] for token in raw["added_tokens"]}
    return dict(sorted(found.items()))


def choose_pieces(raw: Mapping[str, Any], used: Mapping[int, int], *, size: int = 0) -> list[int]:
    """Which pieces to keep.

    Kept are all that texts use, the control tokens, and of the scripts that the texts are written
    in every single character, so that other words of them can still be spelled.

    Args:
        raw: the tokenizer.
        used: how often each id was read.
        size: fill up to so many with further pieces of these scripts, of each as many as its share
            of the characters, in the vocabulary's order: those of pretrained models begin with
            what is frequent. 0: none.

    Returns:
        Old ids, ascending.
    """
    pieces = pieces_of(raw)
    kept = {i for i, n in used.items() if n} | {token["id"] for token in raw["added_tokens"]}
    model = raw["model"]
    if model["type"] == "Unigram":
        scores = [score for _, score in model["vocab"]]
        kept.add(min(range(len(scores)), key=scores.__getitem__))
        if model.get("unk_id") is not None:
            kept.add(model["unk_id"])
    else:
        kept.add(model["vocab"][model["unk_token"]])
    scripts = _scripts({pieces[i]: n for i, n in used.items() if i in pieces})
    fitting = [i for i, piece in pieces.items() if all(_script(c) in scripts for c in _bare(piece))]
    kept.update(i for i in fitting if len(_bare(pieces[i])) <= 1)
    rest = {i: pieces[i] for i in fitting if i not in kept}
    kept.update(_fill(rest, scripts, size - len(kept)))
    return sorted(kept)


def cut_tokenizer(raw: Mapping[str, Any], kept: list[int]) -> dict[str, Any]:
    """The tokenizer with the kept pieces alone, numbered anew in their old order."""
    new = {old: number for number, old in enumerate(kept)}
    found: dict[str, Any] = json.loads(json.dumps(raw))
    model = found["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [entry for i, entry in enumerate(model["vocab"]) if i in new]
        if model.get("unk_id") is not None:
            model["unk_id"] = new[model["unk_id"]]
    else:
        model["vocab"] = {piece: new[i] for piece, i in model["vocab"].items() if i in new}
    for token in found["added_tokens"]:
        token["id"] = new[token["id"]]
    if found.get("padding"):
        found["padding"]["pad_id"] = new[found["padding"]["pad_id"]]
    _renumber(found.get("post_processor"), new)
    return found


def _renumber(part: Any, new: Mapping[int, int]) -> None:
    """Ids of control tokens in a post-processor, which may be a sequence of several."""
    if not isinstance(part, dict):
        return
    for inner in part.get("processors", ()):
        _renumber(inner, new)
    if isinstance(part.get("special_tokens"), dict):
        for token in part["special_tokens"].values():
            token["ids"] = [new[i] for i in token["ids"]]
    for name in ("sep", "cls"):  # of BertProcessing and RobertaProcessing
        if isinstance(part.get(name), list):
            part[name] = [part[name][0], new[part[name][1]]]


def _fill(pieces: Mapping[int, str], scripts: Mapping[str, int], n_wanted: int) -> list[int]:
    """The first pieces of each script by its share of the characters, then others in order."""
    if n_wanted <= 0:
        return []
    total = max(1, sum(scripts.values()))
    left = {script: round(n_wanted * n / total) for script, n in scripts.items()}
    chosen = []
    for i, piece in pieces.items():
        script = max((_script(c) for c in _bare(piece)), key=lambda one: scripts[one])
        if left[script]:
            left[script] -= 1
            chosen.append(i)
    taken = set(chosen)
    return [*chosen, *(i for i in pieces if i not in taken)][:n_wanted]


def _scripts(pieces: Mapping[str, int]) -> dict[str, int]:
    """How much of what was read is in which script; ASCII always, for numbers, names and codes."""
    counts: Counter[str] = Counter()
    for piece, n in pieces.items():
        for character in _bare(piece):
            counts[_script(character)] += n
    floor = MIN_SCRIPT_SHARE * counts.total()
    found = {script: n for script, n in counts.items() if n >= floor}
    return {"": counts[""], "ASCII": counts["ASCII"]} | found


def _script(character: str) -> str:
    """A letter's script by its Unicode name; "" of punctuation and digits, which all share."""
    if character.isascii():
        return "ASCII"
    category = unicodedata.category(character)[0]
    if category in "LM":
        return unicodedata.name(character, "?").split()[0]
    return "" if category in "PNZ" else "symbols"


def _bare(piece: str) -> str:
    return piece.removeprefix(CONTINUES).removeprefix(SPACE) or piece
