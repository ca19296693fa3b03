"""Decisions: what a request may change, and faults that are all named at once."""

from __future__ import annotations

import pytest

from instructrec_deploy.core.decision import PLAIN, Decision, ancestors, as_decision
from instructrec_deploy.core.errors import BundleError, DecisionInvalid
from instructrec_deploy.core.manifest import TaskBook, TaskSpec, parse_toml

TOPICS = ("sport", "football", "tennis", "体育", "politics")
FAULTY = """
[tasks.topic]
labels = ["sport", "football", "tennis", "体育"]
decision = "any"
exclusive = [["football", "tennis"], ["sport", "footbal"], ["sport", "football"], ["tennis"]]
none_label = " ＳＰＯＲＴ"
[tasks.topic.thresholds]
"体育 " = 0.3
[tasks.topic.parents]
football = "sports"
tennis = "sport"
[tasks.topic.head_types]
football = []

[tasks.ring]
labels = ["a", "b", "c"]
[tasks.ring.parents]
a = "b"
b = "c"
c = "a"

[tasks.values]
threshold = 1.5
min_confidence = -1
"""


def test_all_faults_of_a_task_book_are_named_with_their_key_paths() -> None:
    with pytest.raises(BundleError) as caught:
        parse_toml(TaskBook, FAULTY, where="tasks.toml")
    message = caught.value.message
    for words in (
        "tasks.topic.none_label: it is one of the labels",
        "tasks.topic.thresholds.'体育 ': '体育 ' is no label, did you mean '体育'?",
        "tasks.topic.parents.football: 'sports' is no label, did you mean 'sport'?",
        "tasks.topic.exclusive.1: 'footbal' is no label, did you mean 'football'?",
        "tasks.topic.exclusive.3: a group has at least two different labels",
        "tasks.topic.head_types.football: no type is named",
        "tasks.ring.parents: they go round in a circle: a -> b -> c -> a",
        "tasks.values.threshold:",
        "tasks.values.min_confidence:",
    ):
        assert words in message
    assert message.count("circle") == 1


@pytest.mark.parametrize("middle", [{}, {"football": "ball games", "ball games": "sport"}])
def test_labels_that_imply_each_other_cannot_exclude_each_other(middle: dict[str, str]) -> None:
    parents = middle or {"football": "sport"}
    with pytest.raises(ValueError, match="football implies sport"):
        TaskSpec(
            labels=(*TOPICS, "ball games"), parents=parents, exclusive=(("sport", "football"),)
        )


def test_names_are_not_checked_before_the_labels_are_known() -> None:
    spec = TaskSpec(parents={"football": "sport"}, thresholds={"football": 0.3})
    assert spec.deciding().faults(()) == []
    assert spec.deciding().faults(["sport"])


def test_a_learned_none_needs_a_name() -> None:
    with pytest.raises(ValueError, match=r"none_logit: it needs a none_label"):
        TaskSpec(labels=TOPICS, none_logit=1.0)


def test_a_request_changes_what_it_names_and_nothing_else() -> None:
    own = Decision("any", 0.3, (("sport", 0.2),), offset=1.0, parents=(("football", "sport"),))
    assert own.changed(PLAIN) == own
    lower = own.changed(Decision.of(threshold=0.1))
    assert (lower.kind, lower.threshold, lower.thresholds) == ("any", 0.1, ())
    assert (lower.offset, lower.parents) == (own.offset, own.parents)
    assert own.changed(Decision("any", offset=7.0)).offset == 7.0
    single = own.changed(Decision.of("one", none_label="其他"))
    assert (single.kind, single.threshold, single.none_label) == ("one", None, "其他")


def test_a_threshold_of_the_other_kind_does_not_stay() -> None:
    assert Decision("one", 0.9, none_label="x").changed(Decision.of("any")).threshold is None
    assert Decision("one", 0.9).changed(Decision.of("one")).threshold == 0.9


@pytest.mark.parametrize(
    "words", [{"kind": "all"}, {"threshold": 1.01}, {"threshold": float("nan")}]
)
def test_a_decision_that_is_none_is_refused(words: dict[str, object]) -> None:
    with pytest.raises(DecisionInvalid) as caught:
        Decision.of(**words)  # type: ignore[arg-type]
    assert caught.value.code == "IR-1130"
    assert caught.value.hint


def test_loose_arguments_that_say_nothing_change_nothing() -> None:
    assert as_decision() is PLAIN
    rules = Decision.of(parents={"football": "sport"})
    assert as_decision(rules) is rules
    both = as_decision(rules, 0.4, "other")
    assert (both.parents, both.threshold, both.none_label) == (rules.parents, 0.4, "other")


def test_only_what_the_wire_has_fields_for_is_sendable() -> None:
    assert Decision.of("any", threshold=0.4, none_label="other").is_sendable
    assert not Decision.of(parents={"a": "b"}).is_sendable
    assert not Decision("any", offset=2.0).is_sendable


def test_a_task_with_other_candidates_forgets_rules_and_numbers_about_its_own() -> None:
    spec = TaskSpec(
        labels=TOPICS,
        decision="any",
        offset=3.0,
        thresholds={"sport": 0.2, "football": 0.3},
        parents={"football": "sport", "tennis": "sport"},
        exclusive=(("football", "tennis", "politics"), ("football", "politics")),
        instructions={"en": ("Which topics?",)},
    )
    own = spec.instruction("topic").candidates
    part = spec.relabelled([c for c in own if c.label in ("sport", "tennis", "politics")])
    assert part.offset == 3.0
    assert part.thresholds == {"sport": 0.2}
    assert part.parents == {"tennis": "sport"}
    assert part.exclusive == (("tennis", "politics"),)
    other = spec.relabelled([*own[:2], own[0].__class__("weather")])
    assert other.offset is None
    assert other.instruction("topic").decision.is_any


def test_a_task_dumps_to_toml_and_back() -> None:
    tomli_w = pytest.importorskip("tomli_w")
    spec = TaskSpec(labels=TOPICS, none_label="其他", parents={"football": "sport"})
    text = tomli_w.dumps({"tasks": {"主题": spec.model_dump(mode="json")}})
    assert "none_logit" not in text
    assert "exclusive" not in text
    assert parse_toml(TaskBook, text, where="tasks").tasks["主题"] == spec


def test_ancestors_end_even_in_a_circle() -> None:
    assert ancestors("a", {"a": "b", "b": "c"}) == ["b", "c"]
    assert ancestors("a", {"a": "b", "b": "a"}) == ["b", "a"]
    assert ancestors("x", {}) == []
