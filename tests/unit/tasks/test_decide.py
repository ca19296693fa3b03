"""From logits to one label, to several, to none of these; rules hold in every answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from instructrec_deploy.core.decision import PLAIN, Decision, ancestors
from instructrec_deploy.core.errors import DecisionInvalid, InternalError
from instructrec_deploy.core.result import Answer
from instructrec_deploy.tasks.base import Floats
from instructrec_deploy.tasks.classify import decode_answers
from instructrec_deploy.tasks.decide import Decider, decide_answers

#  sport: football, tennis; 体育 (by itself); politics: eu: brexit
LABELS = ("football", "sport", "tennis", "体育", "brexit", "eu", "politics")
PARENTS = {
    "football": "sport",
    "tennis": "sport",
    "brexit": "eu",
    "eu": "politics",
}
GROUPS = (("football", "tennis"), ("sport", "体育"), ("brexit", "体育", "tennis"))
ANY = Decision("any", offset=0.0)
RULES = replace(ANY, parents=tuple(PARENTS.items()), exclusive=GROUPS)
LOGITS = hnp.arrays(np.float32, (3, len(LABELS)), elements=st.floats(-20, 20, width=32))
LEVELS = st.floats(0.0, 1.0)


def decide(
    logits: Sequence[Sequence[float]] | Floats,
    decision: Decision,
    labels: Sequence[str] = LABELS,
    **options: object,
) -> list[Answer]:
    rows = np.array(logits, np.float32)
    given: dict[str, object] = {"top_ks": [0] * len(rows)} | options
    return decode_answers(rows, labels, decision=decision, **given)  # type: ignore[arg-type]


def scores(answer: Answer) -> dict[str, float]:
    return {score.label: score.score for score in answer.scores}


def test_a_plain_answer_names_its_one_label() -> None:
    (answer,) = decide([[0.0, 2.0]], PLAIN, ("负面", "positive"))
    assert (answer.label, answer.labels, answer.abstained) == ("positive", ("positive",), False)


@given(LOGITS, st.floats(0.1, 5.0))
def test_deciding_for_one_label_without_rules_is_the_plain_softmax(
    logits: Floats, temperature: float
) -> None:
    logits = logits.round(3)  # nearer ones may be told apart or not
    plain = decode_answers(logits, LABELS, temperature=temperature, top_ks=[3] * 3)
    decided = decide_answers(
        logits, LABELS, Decision("one"), temperature=temperature, top_ks=[3] * 3
    )
    for one, other in zip(plain, decided, strict=True):
        assert [s.label for s in one.scores] == [s.label for s in other.scores]
        assert one.score == pytest.approx(other.score, abs=1e-12)
        assert one.labels == other.labels


def test_any_has_a_sigmoid_for_each_and_takes_those_above_their_threshold() -> None:
    decision = Decision("any", 0.5, (("c", 0.1),), offset=1.0)
    (answer,) = decide([[3.0, 0.0, -2.0]], decision, ("a", "b", "c"), temperature=2.0)
    expected = {"a": 1 / (1 + math.exp(-1.0)), "b": 1 / (1 + math.exp(0.5))}
    expected["c"] = 1 / (1 + math.exp(1.5))
    assert scores(answer) == pytest.approx(expected)
    assert answer.labels == ("a", "c")
    assert (answer.label, answer.score) == ("a", pytest.approx(expected["a"]))


def test_huge_logits_of_any_do_not_overflow() -> None:
    (answer,) = decide([[3e4, -3e4]], ANY, ("a", "b"), temperature=0.01)
    assert scores(answer) == {"a": 1.0, "b": 0.0}
    (answer,) = decide([[3e4, -3e4]], Decision("any"), ("a", "b"), temperature=0.01)
    assert scores(answer) == {"a": 1.0, "b": 0.0}


@pytest.mark.parametrize("decision", [ANY, Decision("any"), Decision("one", none_label="x")])
def test_a_logit_that_is_no_number_is_our_fault(decision: Decision) -> None:
    with pytest.raises(InternalError):
        decide([[math.nan, 1.0]], decision, ("a", "b"))


def test_without_a_learned_offset_any_compares_with_the_average_of_the_others() -> None:
    (answer,) = decide([[2.0, 1.0, 0.0]], Decision("any"), ("a", "b", "c"))
    others = (math.e + 1) / 2
    assert scores(answer)["a"] == pytest.approx(math.e**2 / (math.e**2 + others))
    (answer,) = decide([[7.0, 7.0, 7.0]], Decision("any"), ("a", "b", "c"))
    assert scores(answer) == pytest.approx({"a": 0.5, "b": 0.5, "c": 0.5})


@given(LOGITS, st.floats(-50, 50))
def test_without_a_learned_offset_a_shift_of_all_logits_changes_nothing(
    logits: Floats, shift: float
) -> None:
    decider = Decider(Decision("any"), LABELS)
    found, _ = decider.probabilities(logits.astype(np.float64))
    moved, _ = decider.probabilities(logits.astype(np.float64) + shift)
    assert np.allclose(found, moved, atol=1e-9)


def test_any_of_a_single_candidate_needs_a_learned_offset() -> None:
    with pytest.raises(DecisionInvalid):
        decide([[2.0]], Decision("any"), ("urgent",))
    assert decide([[2.0]], ANY, ("urgent",))[0].labels == ("urgent",)


def test_where_nothing_passes_any_abstains_with_the_word_for_none() -> None:
    (answer,) = decide([[-1.0, -2.0]], replace(ANY, none_label="其他"), ("a", "b"))
    assert (answer.label, answer.labels, answer.abstained) == ("其他", (), True)
    assert answer.score == pytest.approx(1 / (1 + math.e))
    assert set(scores(answer)) == {"a", "b"}


def test_a_best_probability_below_the_threshold_is_none_of_these() -> None:
    logits = [[0.1, 0.0], [4.0, 0.0]]
    decision = Decision("one", 0.6, none_label="other")
    unsure, sure = decide(logits, decision, ("a", "b"))
    assert (unsure.label, unsure.labels, unsure.abstained) == ("other", (), True)
    assert unsure.score == pytest.approx(1 / (1 + math.exp(-0.1)))
    assert (sure.label, sure.abstained) == ("a", False)
    assert set(scores(unsure)) == {"a", "b"}


def test_an_answer_may_abstain_without_a_word_for_it() -> None:
    (answer,) = decide([[0.1, 0.0]], Decision("one", 0.6), ("a", "b"))
    assert (answer.label, answer.abstained) == ("", True)


def test_a_learned_none_competes_with_the_best_label() -> None:
    decision = Decision("one", none_label="none", none_logit=1.0)
    below, above = decide([[0.9, 0.8], [1.2, 0.0]], decision, ("a", "b"))
    total = math.e + math.exp(0.9) + math.exp(0.8)
    assert (below.label, below.labels, below.abstained) == ("none", (), True)
    assert below.score == pytest.approx(math.e / total)
    assert below.scores[0].label == "none"
    assert sum(scores(below).values()) == pytest.approx(1.0)
    assert (above.label, above.scores[0].label, above.abstained) == ("a", "a", False)


def test_a_guess_below_the_least_confidence_is_not_given() -> None:
    logits = [[0.2, 0.0]]
    one = Decision("one", min_confidence=0.7)
    assert decide(logits, one, ("a", "b"))[0].abstained
    several = replace(ANY, threshold=0.1, min_confidence=0.7)
    (answer,) = decide(logits, several, ("a", "b"))
    assert (answer.labels, answer.abstained) == ((), True)
    assert decide([[2.0, 0.0]], several, ("a", "b"))[0].labels == ("a", "b")


def test_only_leaves_compete_for_one_label_and_parents_have_their_sum() -> None:
    decision = Decision("one", parents=tuple(PARENTS.items()))
    logits = np.zeros((1, len(LABELS)))
    logits[0, LABELS.index("sport")] = 9.0
    logits[0, LABELS.index("tennis")] = 1.0
    (answer,) = decide(logits, decision)
    found = scores(answer)
    assert answer.label == "tennis"
    assert found["tennis"] == pytest.approx(math.e / (math.e + 3))
    assert found["sport"] == pytest.approx(found["tennis"] + found["football"])
    assert found["politics"] == found["eu"] == found["brexit"]
    leaves = ("football", "tennis", "体育", "brexit")
    assert sum(found[leaf] for leaf in leaves) == pytest.approx(1.0)


def test_a_chosen_child_brings_all_its_parents() -> None:
    logits = np.full((1, len(LABELS)), -5.0)
    logits[0, LABELS.index("brexit")] = 3.0
    (answer,) = decide(logits, RULES)
    assert set(answer.labels) == {"brexit", "eu", "politics"}
    assert scores(answer)["politics"] == scores(answer)["brexit"]


def test_a_child_brings_a_parent_whose_own_threshold_it_does_not_reach() -> None:
    decision = replace(RULES, thresholds=(("politics", 0.999),))
    logits = np.full((1, len(LABELS)), -5.0)
    logits[0, LABELS.index("brexit")] = 1.0
    assert "politics" in decide(logits, decision)[0].labels


def test_of_labels_that_exclude_each_other_the_best_wins() -> None:
    logits = np.full((1, len(LABELS)), -5.0)
    logits[0, [LABELS.index("football"), LABELS.index("tennis")]] = 1.0, 2.0
    assert set(decide(logits, RULES)[0].labels) == {"tennis", "sport"}


def test_a_child_loses_with_its_parent() -> None:
    logits = np.full((1, len(LABELS)), -5.0)
    logits[0, [LABELS.index("体育"), LABELS.index("football")]] = 3.0, 2.0
    assert decide(logits, RULES)[0].labels == ("体育",)


def test_types_of_the_marks_leave_only_relations_that_fit() -> None:
    labels = ("出生地", "employer", "spouse", "其他")
    decision = Decision(
        "one",
        head_types=(
            ("出生地", ("PERSON",)),
            ("employer", ("PERSON", "TEAM")),
            ("spouse", ("PERSON",)),
        ),
        tail_types=(("出生地", ("PLACE",)), ("spouse", ("person",))),
    )
    logits = [[9.0, 2.0, 1.0, 0.0]] * 4
    types = [("", ""), ("person", "ＰＬＡＣＥ"), ("TEAM", ""), ("PERSON", "PERSON")]
    answers = decide(logits, decision, labels, types=types)
    assert [a.label for a in answers] == ["出生地", "出生地", "employer", "employer"]
    assert [set(scores(a)) for a in answers] == [
        set(labels),
        {"出生地", "employer", "其他"},
        {"employer", "其他"},
        {"employer", "spouse", "其他"},
    ]
    assert all(sum(scores(a).values()) == pytest.approx(1.0) for a in answers)


@pytest.mark.parametrize("kind", ["one", "any"])
def test_where_no_label_is_allowed_the_answer_abstains(kind: str) -> None:
    decision = Decision(kind, none_label="none", head_types=(("a", ("X",)), ("b", ("X",))))
    first, second = decide(
        [[2.0, 1.0]] * 2, decision, ("a", "b"), types=[("Y", ""), ("X", "")], top_ks=[5, 5]
    )
    assert (first.label, first.scores, first.score, first.abstained) == ("none", (), 0.0, True)
    assert second.labels[0] == "a"


def test_a_request_may_allow_a_part_of_the_candidates() -> None:
    (answer,) = decide([[3.0, 2.0, 1.0]], Decision(allowed=("b", "c")), ("a", "b", "c"))
    assert answer.label == "b"
    assert scores(answer) == pytest.approx({"b": math.e / (math.e + 1), "c": 1 / (math.e + 1)})


def test_scores_are_cut_but_labels_are_all_there() -> None:
    (answer,) = decide([[3.0, 2.0, 1.0]], ANY, ("a", "b", "c"), top_ks=[1])
    assert [s.label for s in answer.scores] == ["a"]
    assert answer.labels == ("a", "b", "c")


@st.composite
def rules(draw: st.DrawFn) -> Decision:
    """Random parents, groups, types, allowed labels and thresholds without contradictions."""
    parents = {
        child: LABELS[draw(st.integers(place + 1, len(LABELS) - 1))]
        for place, child in enumerate(LABELS[:-1])
        if draw(st.booleans())
    }
    group = st.lists(st.sampled_from(LABELS), min_size=2, max_size=3, unique=True)
    decision = Decision(
        draw(st.sampled_from(["one", "any"])),
        draw(LEVELS),
        tuple(draw(st.dictionaries(st.sampled_from(LABELS), LEVELS, max_size=2)).items()),
        draw(st.sampled_from([None, 0.0, 2.0])),
        none_label=draw(st.sampled_from(["", "none"])),
        min_confidence=draw(st.sampled_from([0.0, 0.3])),
        parents=tuple(parents.items()),
        exclusive=tuple(tuple(g) for g in draw(st.lists(group, max_size=3))),
        head_types=tuple(
            (label, ("X",)) for label in draw(st.sets(st.sampled_from(LABELS), max_size=3))
        ),
        allowed=tuple(draw(st.sets(st.sampled_from(LABELS), max_size=5))),
    )
    if decision.none_label and draw(st.booleans()):
        decision = replace(decision, none_logit=draw(st.floats(-5, 5)))
    assume(not decision.faults(LABELS))
    return decision


@given(LOGITS, rules(), st.lists(st.sampled_from(["", "X", "Y"]), min_size=3, max_size=3))
def test_rules_hold_in_every_answer(logits: Floats, decision: Decision, heads: list[str]) -> None:
    parents = dict(decision.parents)
    refused = {label for label, _ in decision.head_types}
    answers = decide(logits, decision, types=[(head, "") for head in heads])
    for answer, head in zip(answers, heads, strict=True):
        chosen = set(answer.labels)
        assert answer.abstained == (not chosen)
        assert answer.label == (answer.labels[0] if chosen else decision.none_label)
        allowed = set(decision.allowed or LABELS) - (refused if head == "Y" else set())
        assert chosen <= allowed
        for label in chosen if decision.is_any else ():
            assert chosen.issuperset(ancestors(label, parents))
        for group in decision.exclusive if decision.is_any else ():
            assert len(chosen.intersection(group)) <= 1
        found = scores(answer)
        assert all(0.0 <= score <= 1.0 + 1e-9 for score in found.values())
        for child, parent in parents.items():
            if child in found:
                assert found[child] <= found[parent] + 1e-9
        if chosen:
            ranked = [found[label] for label in answer.labels]
            assert ranked == sorted(ranked, reverse=True)
            assert ranked[0] >= decision.min_confidence


@given(LOGITS, rules(), LEVELS)
def test_a_higher_threshold_never_chooses_more(
    logits: Floats, decision: Decision, higher: float
) -> None:
    lower = replace(decision, thresholds=())
    assert lower.threshold is not None
    stricter = replace(lower, threshold=max(higher, lower.threshold))
    for one, other in zip(decide(logits, lower), decide(logits, stricter), strict=True):
        assert set(one.labels) >= set(other.labels)


@given(LOGITS, rules(), st.floats(0.0, 1.0))
def test_a_higher_least_confidence_never_answers_more(
    logits: Floats, decision: Decision, higher: float
) -> None:
    stricter = replace(decision, min_confidence=max(higher, decision.min_confidence))
    for one, other in zip(decide(logits, decision), decide(logits, stricter), strict=True):
        assert other.labels in ((), one.labels)


@given(LOGITS, rules(), st.integers(0, 2))
def test_an_answer_does_not_depend_on_its_neighbours(
    logits: Floats, decision: Decision, row: int
) -> None:
    assert decide(logits, decision)[row] == decide(logits[row : row + 1], decision)[0]


@given(LOGITS, rules(), st.data())
def test_within_its_margin_a_probability_may_move_and_the_answer_stays(
    logits: Floats, decision: Decision, data: st.DataObject
) -> None:
    # a learned fit is a ratio, and a parent moves with its children
    decision = replace(decision, parents=(), none_logit=None)
    decider = Decider(decision, LABELS)
    found, none = decider.probabilities(logits)
    before = decider.choose(found, none)
    room = np.minimum(decider.margins(found, none), 1.0)[:, None]
    part = hnp.arrays(np.float64, found.shape, elements=st.floats(-0.49, 0.49))
    moved = found + room * data.draw(part)  # two of them less than the margin nearer each other
    after = decider.choose(moved, none)
    assert [set(row) for row in before] == [set(row) for row in after]
