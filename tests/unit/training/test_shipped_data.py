"""Every data file that comes with the package, whoever adds the next one."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

import instructrec_training
from instructrec_deploy.core.wordings import find_family
from instructrec_deploy.evaluation.reader import read_examples
from instructrec_training.prompted import rows_where

DATA = Path(instructrec_training.__file__).parent / "data"
FILES = sorted(file.relative_to(DATA).as_posix() for file in DATA.glob("*/*.jsonl"))
ENTITIES = [name for name in FILES if name.endswith("_entities.jsonl")]
SPANS = [*ENTITIES, *(name for name in FILES if name.endswith("_names.jsonl"))]
LABELLED = [name for name in FILES if name not in SPANS]
CONTENT = [f"content_safety/{lang}_categories.jsonl" for lang in ("en", "zh")]
SERVICE_DESKS = "service_desks/en_intents.jsonl"
SERVICE_DESKS_ZH = "service_desks/zh_intents.jsonl"
FORM_WORD = re.compile(  # says nothing of what a label is about
    "the|and|for|you|your|our|how|what|why|when|who|does|can|not|too|off|out|from|with|into"
    "|after|before|that|this|than|other|another|any|more"
)


def content(words: str) -> set[str]:
    """The words that carry meaning, each cut to five letters: "paying" meets "payment" so.

    Of Chinese every two characters that stand side by side.
    """
    found = re.findall(r"[a-z]{3,}", words.casefold())
    pairs = re.findall(r"(?=([一-鿿]{2}))", words)
    return {word[:5].rstrip("s") for word in found if not FORM_WORD.fullmatch(word)} | {*pairs}


def rows_of(name: str) -> list[dict[str, Any]]:
    lines = (DATA / name).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def labels_of(row: dict[str, Any]) -> list[str]:
    """Its label, or all of them where several may be right."""
    return row["target"] if isinstance(row["target"], list) else [row["target"]]


def test_the_files_that_recipes_and_pages_name_are_there() -> None:
    assert {
        "customer_service/en_intents.jsonl",
        "customer_service/zh_intents.jsonl",
        "headlines/zh_topics.jsonl",
        "people/en_names.jsonl",
        "people/zh_names.jsonl",
        *CONTENT,
        SERVICE_DESKS,
        SERVICE_DESKS_ZH,
    } <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_in_one_language_and_its_rows_have_ids_of_their_own(name: str) -> None:
    rows = rows_of(name)
    assert {row["lang"] for row in rows} == {Path(name).name[:2]}
    assert len({row["dataset"] for row in rows}) == 1
    assert len({row["id"] for row in rows}) == len(rows)


@pytest.mark.parametrize("name", [name for name in FILES if name not in ENTITIES])
def test_no_text_stands_twice(name: str) -> None:
    counts = Counter(row["text"].strip().casefold() for row in rows_of(name))
    assert [text for text, n in counts.items() if n > 1] == []


@pytest.mark.parametrize("name", FILES)
def test_about_a_tenth_of_the_rows_is_put_aside_twice(name: str) -> None:
    rows = rows_of(name)
    counts = Counter(row["split"] for row in rows)
    assert set(counts) == {"train", "val", "test"}
    assert min(counts["val"], counts["test"]) > 0.05 * len(rows)
    assert counts["train"] > 0.6 * len(rows)


@pytest.mark.parametrize("name", LABELLED)
def test_every_label_is_learned_before_it_is_asked(name: str) -> None:
    rows = rows_of(name)
    learned = {label for row in rows if row["split"] == "train" for label in labels_of(row)}
    assert {label for row in rows for label in labels_of(row)} == learned


@pytest.mark.parametrize("name", SPANS)
def test_every_type_is_learned_before_it_is_asked(name: str) -> None:
    rows = rows_of(name)
    learned = {s["type"] for row in rows if row["split"] == "train" for s in row["target"]}
    assert learned == set(rows[0]["types"])


def test_most_headlines_do_not_contain_their_topic() -> None:
    rows = rows_of("headlines/zh_topics.jsonl")
    named = [row["id"] for row in rows if row["target"] in row["text"]]
    assert len(named) < len(rows) / 3


@pytest.mark.parametrize("name", [SERVICE_DESKS, SERVICE_DESKS_ZH])
def test_a_service_desk_s_label_belongs_to_one_domain_and_has_rows_to_learn_from(name: str) -> None:
    rows = rows_of(name)
    domains = defaultdict(set)
    for row in rows:
        domains[row["target"]].add(row["domain"])
    assert [label for label, names in domains.items() if len(names) > 1] == []
    learned = Counter(row["target"] for row in rows if row["split"] == "train")
    assert min(learned.values()) >= 4


@pytest.mark.parametrize("name", [SERVICE_DESKS, SERVICE_DESKS_ZH])
def test_a_service_desk_s_customers_do_not_speak_in_labels(name: str) -> None:
    texts = defaultdict(list)
    for row in rows_of(name):
        texts[row["target"]].append(row["text"])
    assert all(label == label.casefold() for label in texts if label.isascii())
    assert {text.casefold() for group in texts.values() for text in group}.isdisjoint(texts)
    told = {
        label: sum(bool(content(text) & content(label)) for text in group) / len(group)
        for label, group in texts.items()
    }
    assert [label for label, share in told.items() if share > 0.5] == []


def test_where_takes_the_rows_of_a_domain() -> None:
    rows = rows_where(read_examples(DATA / SERVICE_DESKS), {"domain": "airline"})
    labels = {row.target for row in rows}
    assert 100 < len(rows) < 200
    assert "missed connection" in labels
    assert "delivered but not received" not in labels


@pytest.mark.parametrize("name", CONTENT)
def test_content_has_the_categories_of_the_family_each_with_rows_and_look_alikes(name: str) -> None:
    rows, lang = rows_of(name), Path(name).name[:2]
    words = find_family("content").wordings(lang).styles["short"]
    found = Counter(label for row in rows for label in row["target"])
    assert set(found) == set(words)
    assert min(found.values()) >= 20
    near = Counter(row["near"] for row in rows if "near" in row)
    assert set(near) == set(words)
    assert min(near.values()) >= 15
    assert not any(row["target"] for row in rows if "near" in row)
    harmless = sum(not row["target"] for row in rows)
    assert 0.4 < harmless / len(rows) < 0.7


@pytest.mark.parametrize("name", CONTENT)
def test_content_is_our_own_short_and_handles_a_call_for_help_as_one(name: str) -> None:
    rows = rows_of(name)
    assert {row["source"] for row in rows} == {"written for this project"}
    assert max(len(row["text"]) for row in rows) < 160
    calls = [row["target"] for row in rows if row.get("handling") == "flag"]
    assert len(calls) >= 20
    assert {label for target in calls for label in target} <= {"self-harm", "自残"}


@pytest.mark.parametrize("name", CONTENT)
def test_at_most_three_rows_of_content_begin_alike(name: str) -> None:
    is_spaced = Path(name).name.startswith("en")
    texts = [row["text"].casefold() for row in rows_of(name)]
    begun = Counter(" ".join(text.split()[:4]) if is_spaced else text[:5] for text in texts)
    assert [start for start, n in begun.items() if n > 3] == []
