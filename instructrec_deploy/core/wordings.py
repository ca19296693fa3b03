"""Instructions that come with the package: families of wordings, in English and in Chinese.

A family is one question asked in many ways ("emotion"). `core/families/*.toml` holds them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Annotated

from pydantic import Field, RootModel, StringConstraints, model_validator

from instructrec_deploy.core.errors import FamilyUnknown, WordingsInvalid
from instructrec_deploy.core.instruction import MAX_INSTRUCTION_CHARS
from instructrec_deploy.core.manifest import Strict, parse_toml
from instructrec_deploy.core.near import did_you_mean
from instructrec_deploy.core.task import SHAPES, Shape, TaskKind

FAMILIES_FOLDER = Path(__file__).parent / "families"
LANGUAGES = ("en", "zh")
ANY_LABELS = "classification"  # the family for tasks that fit no other
LABEL_MARK = "{label}"
MIN_WORDINGS = 6  # fewer teach a model the words, not the question

Words = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=MAX_INSTRUCTION_CHARS)
]


class LanguageWordings(Strict):
    """A family in one language."""

    wordings: tuple[Words, ...] = Field(min_length=MIN_WORDINGS)
    held_out: Words  # never trained on: it measures whether other words are understood, too
    asks: tuple[Words, ...] = ()  # nouns for what is asked: "emotion"
    nouns: tuple[Words, ...] = ()  # what it is asked about: "this tweet"
    forms: tuple[Words, ...] = ()  # sentences around a label: "The writer feels {label}."
    descriptions: dict[str, Words] = Field(default_factory=dict)  # label -> better words for it
    styles: dict[str, dict[str, Words]] = Field(default_factory=dict)  # other words, by name

    @model_validator(mode="after")
    def _words_differ(self) -> LanguageWordings:
        if len({fold(wording) for wording in self.wordings}) < len(self.wordings):
            raise ValueError("a wording stands there twice")
        if fold(self.held_out) in {fold(wording) for wording in self.wordings}:
            raise ValueError("held_out is one of the wordings")
        if any(form.count(LABEL_MARK) != 1 for form in self.forms):
            raise ValueError(f"a form needs {LABEL_MARK} exactly once")
        return self


class Family(Strict):
    """One question in many wordings, in every language."""

    title: Words
    kind: TaskKind = TaskKind.CLASSIFICATION
    en: LanguageWordings
    zh: LanguageWordings

    def wordings(self, lang: str) -> LanguageWordings:
        """The family in one language.

        Raises:
            FamilyUnknown: it is not written in that language.
        """
        if lang not in LANGUAGES:
            raise FamilyUnknown(
                f"wordings come in {' and '.join(LANGUAGES)}, not in {lang!r}",
                hint="choose one of them, or write instructions of your own",
            )
        return self.en if lang == "en" else self.zh

    @property
    def tables(self) -> list[Mapping[str, str]]:
        """Every table of words for labels, in both languages."""
        parts = (self.en, self.zh)
        return [words for p in parts for words in (p.descriptions, *p.styles.values()) if words]


class FamilyFile(RootModel[dict[str, Family]]):
    """One file of families."""


def fold(wording: str) -> str:
    """What two spellings of one wording have in common: case, spaces and end marks apart."""
    return " ".join(wording.casefold().split()).rstrip(" .?!:。？！：")


@cache
def shipped_families() -> Mapping[str, Family]:
    """All families by name, in the order of the files and of what stands in them.

    Raises:
        WordingsInvalid: a file of the installation is damaged.
    """
    files = sorted(FAMILIES_FOLDER.glob("*.toml"))
    families: dict[str, Family] = {}
    for file in files:
        found = read_families(file)
        if twice := sorted(found.keys() & families.keys()):
            raise WordingsInvalid(f"{file}: stands in another file, too: {', '.join(twice)}")
        families |= found
    if not families:
        raise WordingsInvalid(f"no families in {FAMILIES_FOLDER}", hint="install the package again")
    return MappingProxyType(families)


def read_families(file: Path) -> dict[str, Family]:
    """The families of one file.

    Raises:
        WordingsInvalid: not TOML, or a family lacks something; all faults at once.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise WordingsInvalid(
            f"{file}: cannot be read as UTF-8", hint="save it as UTF-8"
        ) from error
    return parse_toml(FamilyFile, text, where=str(file), error=WordingsInvalid).root


def find_family(name: str) -> Family:
    """The family of that name.

    Raises:
        FamilyUnknown: there is none; the hint names the nearest.
    """
    families = shipped_families()
    if name in families:
        return families[name]
    raise FamilyUnknown(
        f"no family of wordings {name!r}",
        hint=did_you_mean(name, families, most=3) or "see `instructrec instructions list`",
    )


def guess_family(labels: Sequence[str], wordings: Iterable[str] = ()) -> str:
    """The family a classification task belongs to, by its words; "classification" where unclear.

    A family fits that has one of the task's wordings, else one that has words for every label; of
    several the one with the fewest other labels.
    """
    asked = {fold(wording) for wording in wordings}
    fitting: list[tuple[int, str]] = []
    for name, family in shipped_families().items():
        if SHAPES[family.kind] is not Shape.CLASSIFY:
            continue
        known = {fold(w) for lang in LANGUAGES for w in family.wordings(lang).wordings}
        if asked & known:
            return name
        sizes = [len(words) for words in family.tables if set(labels) <= words.keys()]
        if labels and sizes:
            fitting.append((min(sizes), name))
    return min(fitting, default=(0, ANY_LABELS))[1]
