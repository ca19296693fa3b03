"""The model of letters: what it scores, what it finds, what it leaves alone."""

from __future__ import annotations

import random

import numpy as np
import pytest

from instructrec_deploy.safety.guard import Guard
from instructrec_deploy.safety.policy import parse_policy
from instructrec_deploy.safety.streaming import StreamGuard
from instructrec_deploy.safety.word_forms import MAX_CHARS, candidates, letters_of, sounds_of
from instructrec_deploy.safety.word_model import N_WEIGHTS, features, shipped_model

GUARD = Guard(parse_policy("[input]\nword_model = true\n", where="safety.toml"))
PLAIN = Guard()


def _found(guard: Guard, text: str) -> list[str]:
    return [text[f.start : f.end] for f in guard.check_input(text).verdict.findings]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("I said f.u.c.k!", ["said", "f.u.c.k"]),
        ("😀sh1t😀", ["😀sh1t😀"]),
        ("to be", []),
        ("这个煞笔东西", ["煞笔"]),
        ("傻-b 来了", ["傻-b"]),
        ("x" * (MAX_CHARS + 1), []),
    ],
)
def test_words_and_characters_whose_sounds_are_known_are_scored(
    text: str, words: list[str]
) -> None:
    found = [text[word.start : word.end] for word in candidates(text.lower())]
    assert [word for word in found if word in words] == words
    assert not found or words


def test_look_alikes_are_read_as_letters_and_characters_as_syllables() -> None:
    assert letters_of("sh!!7") == "shit"
    assert letters_of("fuuu-ck") == "fuck"
    assert sounds_of("煞笔x") == "shabix"


def test_a_word_has_the_same_score_in_every_text() -> None:
    model = shipped_model()
    alone = candidates("sh1thead")
    among = candidates("what a sh1thead, 你好吗 and so on")
    scores = dict(zip([word.raw for word in among], model.scores(among), strict=True))
    assert scores["sh1thead"] == pytest.approx(model.scores(alone)[0], abs=1e-9)  # sums of floats
    assert model.scores([]) == []


def test_features_are_within_the_weights_and_each_word_has_some() -> None:
    words = candidates("fvck 煞笔 😀ab")
    indexes, owners = features(words)
    assert indexes.min() >= 0
    assert indexes.max() < N_WEIGHTS
    assert set(owners.tolist()) == set(range(len(words)))
    assert np.all(np.bincount(owners) > 4)


@pytest.mark.parametrize(
    "text", ["you fvcking idiot", "你真是煞哔笔", "", "今天天气很好", "hello there"]
)
def test_without_the_model_nothing_changes(text: str) -> None:
    kept = [f for f in GUARD.check_input(text).verdict.findings if f.rule != "disguised_word"]
    assert tuple(kept) == PLAIN.check_input(text).verdict.findings or len(kept) < len(
        PLAIN.check_input(text).verdict.findings
    )


@pytest.mark.parametrize("text", ["what a sh!thead", "fuckery f-u-c-k-e-r", "这个沙笔"])
def test_a_disguised_word_is_found_and_flagged(text: str) -> None:
    verdict = GUARD.check_input(text).verdict
    assert verdict.action == "flag"
    assert {f.category for f in verdict.findings} == {"profanity"}


@pytest.mark.parametrize(
    "text",
    [
        *("I live in Scunthorpe near Penistone", "a classic bass cocktail", "part F4-11K in stock"),
        *(
            "比赛开始了",
            "他在沙发上",
            "请安装杀毒软件",
            "妈妈在码头",
            "笔记本",
            "Shanghai 今天有雨",
        ),
    ],
)
def test_look_alikes_are_left_alone(text: str) -> None:
    assert _found(GUARD, text) == []


def test_the_verdict_of_a_stream_is_that_of_the_whole_text() -> None:
    rng = random.Random(5)
    pieces = [
        "fvck",
        "煞",
        "笔",
        " ",
        "sh!t",
        "head",
        "-",
        "你",
        "妈",
        "x",
        "，",
        "hello",
        "😀",
        '"',
    ]
    policy = parse_policy("[output]\nword_model = true\n", where="safety.toml")
    guard = Guard(policy)
    for _ in range(60):
        text = "".join(rng.choice(pieces) for _ in range(rng.randint(1, 12)))
        stream = StreamGuard(guard)
        at = 0
        while at < len(text):
            step = rng.randint(1, 3)
            stream.feed(text[at : at + step])
            at += step
        _, verdict = stream.finish()
        assert verdict.findings == guard.check_text(text, "output").verdict.findings
