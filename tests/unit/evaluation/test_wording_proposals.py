"""What is proposed: seeds, sentences, label styles, edits; never what is held out."""

from __future__ import annotations

import pytest

from instructrec_deploy.core.instruction import Candidate, Instruction
from instructrec_deploy.core.wordings import LANGUAGES, find_family, fold
from instructrec_deploy.evaluation.wording_proposals import (
    OWN_STYLE,
    Proposal,
    Proposer,
    fill,
    label_styles,
    read_grammar,
)

EMOTIONS = ("anger", "joy", "optimism", "sadness")
MANY = 5_000  # more than there is


def proposer(lang: str = "en", seed: int = 0, **extra: object) -> Proposer:
    family = find_family("emotion").wordings(lang)
    settings = {"labels": EMOTIONS, "family": family, "lang": lang, "seed": seed} | extra
    return Proposer("What is felt?", **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_default_comes_first_and_nothing_comes_twice(lang: str) -> None:
    found = proposer(lang).first(MANY)
    assert found[0] == Proposal("What is felt?", EMOTIONS)
    assert len({(p.text, p.words) for p in found}) == len(found) > 200


@pytest.mark.parametrize("lang", LANGUAGES)
def test_no_more_is_proposed_than_asked_for(lang: str) -> None:
    source = proposer(lang)
    assert len(source.first(17)) == 17
    assert len(source.edits(proposer(lang).first(5), 9)) == 9


@pytest.mark.parametrize("lang", LANGUAGES)
def test_held_out_wordings_are_never_proposed(lang: str) -> None:
    held_out = find_family("emotion").wordings(lang).held_out
    source = proposer(lang, given=[held_out, held_out.upper() + "!"], avoid=["Secret wording"])
    parents = [Proposal("Secret wording", EMOTIONS), Proposal(held_out, EMOTIONS)]
    found = [*source.first(MANY), *source.edits(parents, 300)]
    assert {fold(held_out), "secret wording"}.isdisjoint({fold(p.text) for p in found})


def test_the_same_seed_proposes_the_same_and_another_seed_other_things() -> None:
    def run(seed: int) -> list[Proposal]:
        source = proposer(seed=seed)
        first = source.first(60)
        return first + source.edits(first[:6], 40)

    assert run(1) == run(1)
    assert run(1) != run(2)


def test_the_users_wordings_come_before_the_familys() -> None:
    found = proposer(given=["Mine?"], task=["The task's?"]).first(MANY)
    origins = list(dict.fromkeys(p.origin for p in found))
    assert origins[:3] == ["default", "task", "given"]
    assert {"family", "grammar"} <= set(origins)


def test_edits_change_the_words_or_the_style_of_their_parents() -> None:
    source = proposer()
    parent = Proposal("Read this tweet. Name the emotion of it.", EMOTIONS)
    found = source.edits([parent], 100)
    assert {"drop", "swap", "mix", "replace", "borrow", "restyle"} == {p.origin for p in found}
    assert all((p.text, p.words) != (parent.text, parent.words) or p.origin for p in found)


def test_an_exhausted_neighbourhood_ends() -> None:
    source = Proposer(
        "好吗",
        labels=("a", "b"),
        family=find_family("summary").wordings("zh"),
        lang="zh",
    )
    assert len(source.edits([Proposal("好吗", ("a", "b"))], 500)) < 500
    assert source.edits([], 5) == []


def test_labels_are_put_bare_described_and_inside_sentences() -> None:
    family = find_family("emotion").wordings("en")
    styles = label_styles(EMOTIONS, {"anger": "rage"}, family)
    assert styles[OWN_STYLE] == ("rage", "joy", "optimism", "sadness")
    assert styles["bare"] == EMOTIONS
    assert styles["adjectives"] == ("angry", "happy", "optimistic", "sad")
    assert styles["own: The writer feels {label}."][0] == "The writer feels rage."
    assert all(len(words) == 4 for words in styles.values())
    assert len(set(styles.values())) == len(styles)


def test_a_label_the_family_does_not_know_stays_as_it_is() -> None:
    styles = label_styles(("anger", "boredom"), {}, find_family("emotion").wordings("zh"))
    assert styles["described"] == ("愤怒", "boredom")


@pytest.mark.parametrize(("lang", "other"), [("zh", "愤怒"), ("en", "ANGRY")])
def test_labels_are_never_put_so_that_two_of_them_read_alike(lang: str, other: str) -> None:
    labels = ("anger", other)
    family = find_family("emotion").wordings(lang)
    styles = label_styles(labels, {}, family)
    assert styles[OWN_STYLE] == labels
    clashes = [family.descriptions, *family.styles.values()]
    assert any(table.get("anger", "").casefold() == other.casefold() for table in clashes)
    for words in styles.values():
        Instruction.of("Which?", list(map(Candidate, labels, words)))


def test_a_label_with_braces_is_no_template() -> None:
    styles = label_styles(("{label}", "{0}"), {}, find_family("emotion").wordings("en"))
    assert styles["own: This expresses {label}."] == (
        "This expresses {label}.",
        "This expresses {0}.",
    )


@pytest.mark.parametrize("lang", LANGUAGES)
def test_every_sentence_of_the_grammar_is_filled(lang: str) -> None:
    family = find_family("emotion").wordings(lang)
    found = list(fill(read_grammar(lang), family))
    assert len(found) >= 12
    assert not [text for text in found if "{" in text]
