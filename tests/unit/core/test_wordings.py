"""The families of wordings that are shipped, and how they are found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from instructrec_deploy.core.errors import FamilyUnknown, WordingsInvalid
from instructrec_deploy.core.manifest import TaskSpec
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.core.wordings import (
    LANGUAGES,
    find_family,
    fold,
    guess_family,
    read_families,
    shipped_families,
)

PROMISED = (
    "intent-banking",
    "intent-assistant",
    "intent-desk",
    "intent-shop",
    "emotion",
    "irony",
    "sentiment",
    "review-sentiment",
    "news-topic",
    "same-meaning",
    "inference",
    "offensive",
    "hate",
    "content",
    "entities",
    "entities-politics",
    "entities-science",
    "entities-music",
    "entities-social",
    "personal-data",
    "slots",
    "relation",
    "question-answering",
    "recommend-films",
    "recommend-products",
    "answer-retrieval",
    "yes-no",
    "language",
    "spam",
    "urgency",
    "dialogue-topic",
    "formality",
    "prompt-injection",
    "classification",
    "summary",
    "chat-reply",
    "translate-to-chinese",
    "translate-to-english",
    "translate-to-german",
)
HAN = re.compile(r"[\u4e00-\u9fff]")
SIX = '["a a", "b b", "c c", "d d", "e e", "f f"]'
GOOD = f"""
[mood]
title = "a mood"
[mood.en]
wordings = {SIX}
held_out = "g g"
[mood.zh]
wordings = {SIX}
held_out = "g g"
"""


def test_every_promised_family_is_there_and_no_other() -> None:
    assert sorted(shipped_families()) == sorted(PROMISED)


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("name", PROMISED)
def test_a_family_has_six_different_wordings_and_an_unseen_one(name: str, lang: str) -> None:
    part = find_family(name).wordings(lang)
    spellings = {re.sub(r"\W", "", wording).lower() for wording in part.wordings}
    assert len(spellings) == len(part.wordings) >= 6
    assert re.sub(r"\W", "", part.held_out).lower() not in spellings


@pytest.mark.parametrize("name", PROMISED)
def test_chinese_is_written_in_chinese_and_english_in_english(name: str) -> None:
    family = find_family(name)
    chinese = [*family.zh.wordings, family.zh.held_out, *family.zh.descriptions.values()]
    assert [words for words in chinese if not HAN.search(words)] == []
    english = [*family.en.wordings, family.en.held_out, *family.en.descriptions.values()]
    assert [words for words in english if HAN.search(words)] == []


@pytest.mark.parametrize("lang", LANGUAGES)
def test_what_one_family_holds_out_no_other_family_trains_on(lang: str) -> None:
    parts = [family.wordings(lang) for family in shipped_families().values()]
    seen = {fold(wording) for part in parts for wording in part.wordings}
    assert {fold(part.held_out) for part in parts}.isdisjoint(seen)
    assert len({fold(part.held_out) for part in parts}) == len(parts)


@pytest.mark.parametrize(
    "name", [n for n in PROMISED if find_family(n).kind is TaskKind.CLASSIFICATION]
)
@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_family_that_can_be_searched_names_what_it_asks(name: str, lang: str) -> None:
    part = find_family(name).wordings(lang)
    assert part.asks
    assert part.nouns
    assert all(form.count("{label}") == 1 for form in part.forms)
    assert len(part.forms) >= 3


@pytest.mark.parametrize(
    ("labels", "family"),
    [
        (("正面", "负面"), "review-sentiment"),
        (("negative", "neutral", "positive"), "sentiment"),
        (("anger", "joy", "optimism", "sadness"), "emotion"),
        (("irony", "non irony"), "irony"),
        (("不冒犯", "冒犯"), "offensive"),
        (("hateful", "non-hateful"), "hate"),
        (("不同义", "同义"), "same-meaning"),
        (("财经", "股票", "体育"), "news-topic"),
        (("activate my card", "change pin"), "intent-banking"),
        (("oil change how", "weather", "out of scope"), "intent-assistant"),
        (("refund status", "talk to a person"), "intent-shop"),
        (("apples", "oranges"), "classification"),
        ((), "classification"),
    ],
)
def test_labels_tell_the_family(labels: tuple[str, ...], family: str) -> None:
    assert guess_family(labels) == family


def test_a_wording_tells_the_family_before_the_labels_do() -> None:
    assert guess_family(("正面", "负面"), ["顾客联系客服是为了什么事"]) == "intent-shop"


def test_an_unknown_family_names_the_nearest() -> None:
    with pytest.raises(FamilyUnknown) as caught:
        find_family("emotions")
    assert caught.value.code == "IR-1620"
    assert "emotion" in caught.value.hint


def test_a_language_without_wordings_is_refused() -> None:
    with pytest.raises(FamilyUnknown, match="'fr'"):
        find_family("emotion").wordings("fr")


def test_a_good_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_text(GOOD, encoding="utf-8")
    assert read_families(file)["mood"].zh.held_out == "g g"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('"f f"', '"A a."', "stands there twice"),
        ('held_out = "g g"', 'held_out = "B  B?"', "held_out is one of the wordings"),
        (', "f f"', "", "at least 6"),
        ("held_out", "heldout", "mood.en.heldout"),
        ("[mood.zh]", "[mood.fr]", "mood.zh"),
        ('title = "a mood"', 'title = ""', "mood.title"),
        ('held_out = "g g"', 'held_out = "g g"\nforms = ["{label} {label}"]', "exactly once"),
        ("[mood.en]", "[mood.en", "not valid TOML"),
    ],
)
def test_a_wrong_file_is_refused_with_the_key(
    tmp_path: Path, old: str, new: str, words: str
) -> None:
    file = tmp_path / "f.toml"
    assert old in GOOD
    file.write_text(GOOD.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(WordingsInvalid) as caught:
        read_families(file)
    assert words in caught.value.message
    assert caught.value.code == "IR-1621"


def test_a_file_in_another_encoding_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "f.toml"
    file.write_bytes("标题".encode("gbk"))
    with pytest.raises(WordingsInvalid, match="UTF-8"):
        read_families(file)


def test_a_task_cannot_hold_out_what_it_trains_on() -> None:
    good = {"instructions": {"en": ["a", "b"]}, "held_out": {"en": "c"}}
    assert TaskSpec.model_validate(good).held_out == {"en": "c"}
    with pytest.raises(ValidationError, match=r"held_out\.en"):
        TaskSpec.model_validate(good | {"held_out": {"en": "b"}})
