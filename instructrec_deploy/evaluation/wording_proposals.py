"""Wordings to try for a task: seeds, sentences of a small grammar, and edits of what did well.

A proposal is an instruction and a way of putting the labels (a *style*).
"""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from instructrec_deploy.core.errors import LabelsAlike, TextTooLong
from instructrec_deploy.core.instruction import Candidate, Instruction
from instructrec_deploy.core.manifest import Strict, parse_toml
from instructrec_deploy.core.wordings import LABEL_MARK, LanguageWordings, fold
from instructrec_deploy.evaluation.wording_edits import EDITS, Material, is_usable

GRAMMAR_FILE = Path(__file__).parent / "wording_grammar.toml"
# Edits tried, and more for each one wanted, before the neighbourhood counts as exhausted.
BASE_TRIES, TRIES = 300, 30
RESTYLE_SHARE = 0.3  # of the edits put the labels another way; the rest change the words
OWN_STYLE = "own"  # the labels as the task has them
FORMED_BASES = (OWN_STYLE, "bare", "described")  # nouns, as a rule: they fit into a sentence


@dataclass(frozen=True, slots=True)
class Proposal:
    """One wording to try."""

    text: str
    words: tuple[str, ...]  # of each label, in the task's order: what the model reads
    style: str = OWN_STYLE
    origin: str = "default"  # default, task, given, family, grammar, or the edit that made it


class Grammar(Strict):
    """The building blocks of one language."""

    frames: tuple[str, ...]
    synonyms: tuple[tuple[str, ...], ...]


class GrammarFile(Strict):
    """`wording_grammar.toml`."""

    en: Grammar
    zh: Grammar


@cache
def read_grammar(lang: str) -> Grammar:
    """The grammar of a language; that of English for any other than Chinese."""
    text = GRAMMAR_FILE.read_text(encoding="utf-8")
    found = parse_toml(GrammarFile, text, where=str(GRAMMAR_FILE))
    return found.zh if lang == "zh" else found.en


def label_styles(
    labels: Sequence[str], own: Mapping[str, str], family: LanguageWordings
) -> dict[str, tuple[str, ...]]:
    """Ways of putting the labels, by name: as the task does, bare, described, inside a sentence.

    One that makes two labels alike is left out, unless it is the task's own.

    Args:
        labels: the task's labels.
        own: the task's descriptions.
        family: of the task, in the language that is searched.
    """
    styles = {
        OWN_STYLE: tuple(own.get(label) or label for label in labels),
        "bare": tuple(labels),
    }
    for name, table in {"described": family.descriptions, **family.styles}.items():
        if any(label in table for label in labels):
            styles[name] = tuple(table.get(label, label) for label in labels)
    for name in [base for base in FORMED_BASES if base in styles]:
        for form in family.forms:
            formed = tuple(form.replace(LABEL_MARK, word) for word in styles[name])
            styles[f"{name}: {form}"] = formed
    distinct: dict[tuple[str, ...], str] = {}
    for name, words in styles.items():
        if name == OWN_STYLE or _can_be_asked(
            labels, words
        ):  # what is wrong with own is said later
            distinct.setdefault(words, name)
    return {name: words for words, name in distinct.items()}


def _can_be_asked(labels: Sequence[str], words: Sequence[str]) -> bool:
    """Whether no label reads like another one's words, and none is too long."""
    try:
        Instruction.of("Which?", list(map(Candidate, labels, words)))
    except (LabelsAlike, TextTooLong):
        return False
    return True


class Proposer:
    """Proposes wordings for one task; the same seed proposes the same.

    Args:
        default: the task's own wording.
        task: its other wordings.
        given: the user's.
        family, lang: where seeds, nouns and label styles come from.
        labels, own: the task's labels and their descriptions.
        avoid: wordings that must not be proposed (held out).
    """

    def __init__(
        self,
        default: str,
        *,
        labels: Sequence[str],
        family: LanguageWordings,
        lang: str,
        own: Mapping[str, str] | None = None,
        task: Sequence[str] = (),
        given: Sequence[str] = (),
        avoid: Collection[str] = (),
        seed: int = 0,
    ) -> None:
        self.styles = label_styles(labels, own or {}, family)
        grammar = read_grammar(lang)
        self._default = default
        self._seeds = [
            (text, origin)
            for origin, texts in (("task", task), ("given", given), ("family", family.wordings))
            for text in texts
        ]
        self._sentences = list(fill(grammar, family))
        self._groups = (*grammar.synonyms, family.asks, family.nouns)
        self._avoid = {fold(wording) for wording in (family.held_out, *avoid)} - {fold(default)}
        self._rng = random.Random(seed)
        self._seen: set[tuple[str, tuple[str, ...]]] = set()

    @property
    def default(self) -> Proposal:
        """What a search has to beat."""
        return Proposal(self._default, self.styles[OWN_STYLE])

    def first(self, n: int) -> list[Proposal]:
        """At most n proposals to begin with, the default first, then from sure to daring."""
        texts = [*self._seeds, *((text, "grammar") for text in self._sentences)]
        wide = [(*pair, style) for pair in texts for style in self.styles]
        self._rng.shuffle(wide)
        wanted = [
            (self._default, "default", OWN_STYLE),
            *((text, origin, OWN_STYLE) for text, origin in self._seeds if origin != "family"),
            *((self._default, "default", style) for style in self.styles),
            *((text, origin, OWN_STYLE) for text, origin in self._seeds if origin == "family"),
            *wide,
        ]
        return self._take(
            (Proposal(text, self.styles[style], style, origin) for text, origin, style in wanted), n
        )

    def edits(self, parents: Sequence[Proposal], n: int) -> list[Proposal]:
        """At most n new proposals near the parents; fewer where the neighbourhood is exhausted.

        Args:
            parents: the best first; an earlier one has more children.
        """
        if not parents:
            return []
        texts = [text for text, _ in self._seeds] + self._sentences
        return self._take((self._edit(parents, texts) for _ in range(BASE_TRIES + TRIES * n)), n)

    def _edit(self, parents: Sequence[Proposal], texts: Sequence[str]) -> Proposal:
        rng = self._rng
        parent = parents[min(rng.randrange(len(parents)), rng.randrange(len(parents)))]
        if rng.random() < RESTYLE_SHARE:
            style = rng.choice([*self.styles, *(p.style for p in parents)])
            return Proposal(parent.text, self.styles[style], style, "restyle")
        name, edit = rng.choice(list(EDITS.items()))
        other = rng.choice(texts) if rng.random() < 0.5 else rng.choice(parents).text
        text = edit(Material(parent.text, other, self._groups), rng)
        return Proposal(text, parent.words, parent.style, name)

    def _take(self, wanted: Iterator[Proposal], n: int) -> list[Proposal]:
        """The first n that are new, say something, and are not held out."""
        chosen: list[Proposal] = []
        for proposal in wanted:
            if len(chosen) >= n:
                break
            key = (fold(proposal.text), proposal.words)
            is_default = proposal.origin == "default"  # as the user has it, whatever it looks like
            if key in self._seen or key[0] in self._avoid:
                continue
            if is_default or is_usable(proposal.text):
                self._seen.add(key)
                chosen.append(proposal)
        return chosen


def fill(grammar: Grammar, family: LanguageWordings) -> Iterator[str]:
    """Every frame of the grammar filled with what the family asks and about what."""
    for frame in grammar.frames:
        for ask in family.asks:
            for noun in family.nouns:
                text = frame.replace("{ask}", ask).replace("{noun}", noun)
                yield text[:1].upper() + text[1:]
