"""Whose turn it is among tenants that wait."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instructrec_deploy.runtime.turns import MAX_IDLE_LINES, Turns


@dataclass(eq=False)
class Text:
    tenant: str
    n_tokens: int
    n_due: int
    urgency_s: float
    order: int
    share: float = 1.0


def add(turns: Turns[Text], tenant: str, n_tokens: int = 10, urgency_s: float = 1.0) -> Text:
    text = Text(tenant, n_tokens, n_tokens, urgency_s, len(turns))
    turns.add(text)
    return text


def take(turns: Turns[Text]) -> Text:
    text = turns.first()
    assert text is not None
    turns.charge(text)
    turns.remove(text)
    return text


def served(turns: Turns[Text], n_texts: int, between: str = "") -> str:
    return between.join(take(turns).tenant for _ in range(n_texts))


def test_a_tenant_s_most_urgent_is_first() -> None:
    turns: Turns[Text] = Turns()
    for urgency_s in (3.0, 1.0, 2.0):
        add(turns, "a", urgency_s=urgency_s)
    assert [text.urgency_s for text in turns] == [1.0, 2.0, 3.0]
    assert [take(turns).urgency_s for _ in range(3)] == [1.0, 2.0, 3.0]
    assert turns.first() is None


def test_urgency_decides_between_tenants_that_are_even() -> None:
    turns: Turns[Text] = Turns()
    add(turns, "a", urgency_s=2.0)
    add(turns, "b", urgency_s=1.0)
    assert served(turns, 2) == "ba"


def test_a_new_tenant_goes_ahead_of_a_flood() -> None:
    turns: Turns[Text] = Turns()
    for _ in range(100):
        add(turns, "f", urgency_s=0.1)
    assert served(turns, 5) == "fffff"
    add(turns, "q", urgency_s=9.0)
    assert served(turns, 3).count("q") == 1


def test_tenants_share_by_tokens_not_by_texts() -> None:
    turns: Turns[Text] = Turns()
    for _ in range(60):
        add(turns, "s", n_tokens=10)
        add(turns, "l", n_tokens=50)
    counts = Counter(served(turns, 60))
    assert counts["s"] == pytest.approx(5 * counts["l"], abs=5)


def test_a_larger_share_gets_more() -> None:
    turns: Turns[Text] = Turns()
    for order in range(60):
        turns.add(Text("large", 10, 10, 1.0, order, share=3.0))
        turns.add(Text("small", 10, 10, 1.0, order))
    assert Counter(served(turns, 40, ",").split(","))["large"] == pytest.approx(30, abs=1)


def test_who_did_not_ask_has_saved_nothing() -> None:
    turns: Turns[Text] = Turns()
    for _ in range(200):
        add(turns, "f")
    served(turns, 100)
    for _ in range(50):
        add(turns, "q")
    assert Counter(served(turns, 40)) == pytest.approx({"f": 20, "q": 20}, abs=1)


def test_who_asks_for_little_goes_first_with_a_few_texts_of_one_moment() -> None:
    turns: Turns[Text] = Turns(credit_tokens=40)
    for _ in range(100):
        add(turns, "f")
    add(turns, "q")
    served(turns, 30)
    for _ in range(10):
        add(turns, "q")
    found = served(turns, 14)
    assert found[:4] == "qqqq"
    assert Counter(found[4:]) == {"f": 5, "q": 5}  # no more than that was saved


def test_unused_turns_outlast_a_moment_in_which_nobody_waits() -> None:
    turns: Turns[Text] = Turns(credit_tokens=40)
    add(turns, "q")
    served(turns, 1)
    for _ in range(20):  # a tenant whose quota lets one text in as soon as another one is out
        add(turns, "f")
        assert served(turns, 1) == "f"
    for tenant in "fqqqqf":
        add(turns, tenant)
    assert served(turns, 6) == "qqqqff"


def test_who_was_alone_owes_no_more_than_the_credit_of_another() -> None:
    turns: Turns[Text] = Turns(credit_tokens=40)
    for _ in range(1000):
        add(turns, "f")
    served(turns, 1000)
    for _ in range(20):
        add(turns, "f")
        add(turns, "q")
    assert Counter(served(turns, 20)) == pytest.approx({"f": 8, "q": 12}, abs=1)


def test_a_credit_is_shared_out_as_the_workers_are() -> None:
    turns: Turns[Text] = Turns(credit_tokens=40)
    for _ in range(100):
        add(turns, "f")
    served(turns, 20)
    for order in range(30):
        turns.add(Text("q", 10, 10, 1.0, order, share=4.0))
    assert served(turns, 7) == "qqqqqqq"  # four of its credit, and what a text of the other's is
    assert Counter(served(turns, 10)) == {"q": 8, "f": 2}


def test_company_is_not_taken_from_who_is_far_ahead() -> None:
    turns: Turns[Text] = Turns()
    young, other = add(turns, "f"), add(turns, "q")
    assert turns.may_ride(young, 0.0, 15)
    turns.charge(young)
    turns.charge(young)
    assert not turns.may_ride(young, 0.0, 15)
    assert turns.may_ride(other, 0.0, 15)


def test_the_young_do_not_ride_past_the_overdue_of_their_line() -> None:
    turns: Turns[Text] = Turns()
    old, young = add(turns, "f", urgency_s=1.0), add(turns, "f", urgency_s=3.0)
    add(turns, "q")
    assert turns.may_ride(young, 0.5, 100)
    assert not turns.may_ride(young, 2.0, 100)
    assert turns.may_ride(old, 2.0, 100)


def test_one_who_waits_alone_may_ride_whoever_was_here_before() -> None:
    turns: Turns[Text] = Turns()
    add(turns, "q")
    served(turns, 1)
    add(turns, "f", urgency_s=1.0)
    young = add(turns, "f", urgency_s=3.0)
    assert turns.may_ride(young, 2.0, 0)


def test_what_comes_before_is_one_s_own_and_as_much_of_each_other() -> None:
    turns: Turns[Text] = Turns()
    for _ in range(10):
        add(turns, "f", n_tokens=10, urgency_s=1.0)
    assert turns.tokens_before("f", 2.0) == 100
    assert turns.tokens_before("f", 0.5) == 0
    assert turns.tokens_before("q", 2.0) == 0
    add(turns, "q", n_tokens=10, urgency_s=1.0)
    assert turns.tokens_before("q", 2.0) == 20


def test_tenants_that_are_gone_are_forgotten() -> None:
    turns: Turns[Text] = Turns()
    add(turns, "stays", n_tokens=1, urgency_s=9.0)
    for number in range(1000):
        add(turns, str(number), urgency_s=1.0)
        text = next(iter(turns))
        turns.charge(text)
        turns.remove(text)
    assert len(turns._lines) <= MAX_IDLE_LINES + 2


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 50)), min_size=1, max_size=80))
def test_tenants_that_wait_all_along_get_alike(texts: list[tuple[str, int]]) -> None:
    turns: Turns[Text] = Turns()
    left: Counter[str] = Counter()
    for tenant, n_tokens in texts:
        add(turns, tenant, n_tokens)
        left[tenant] += 1
    tenants, tokens = set(left), Counter[str]()
    while all(left[tenant] for tenant in tenants):
        text = take(turns)
        left[text.tenant] -= 1
        tokens[text.tenant] += text.n_tokens
        # As Goyal, Vin and Cheng show: never more apart than by one text of each.
        assert max(tokens[t] for t in tenants) - min(tokens[t] for t in tenants) <= 100


@given(st.lists(st.tuples(st.integers(0, 90), st.integers(0, 3)), max_size=300))
def test_what_is_counted_is_what_waits(steps: list[tuple[int, int]]) -> None:
    turns: Turns[Text] = Turns(credit_tokens=40)
    waiting: list[Text] = []
    for order, (tenant, n_taken) in enumerate(steps):
        waiting.append(Text(str(tenant), 10, 10, 1.0, order))
        turns.add(waiting[-1])
        for _ in range(min(n_taken, len(waiting))):
            waiting.remove(take(turns))
        busy = {text.tenant for text in waiting}
        assert (len(turns), turns.n_tokens) == (len(waiting), 10 * len(waiting))
        assert turns._n_busy == len(busy)
        assert len(turns._lines) <= MAX_IDLE_LINES + len(busy)
