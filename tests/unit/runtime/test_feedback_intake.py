"""The way into the store: the task is asked, the policy masks, what cannot be kept is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from instructrec_deploy.core.errors import (
    BundleError,
    FeedbackInvalid,
    FeedbackRefused,
    InstructRecError,
    LabelUnknown,
    TaskUnknown,
)
from instructrec_deploy.core.feedback import Feedback, Receipt, SpanMark, Target
from instructrec_deploy.core.manifest import TaskBook, parse_toml
from instructrec_deploy.runtime.feedback_intake import FeedbackIntake
from instructrec_deploy.runtime.feedback_store import FeedbackStore
from instructrec_deploy.safety.guard import Guard

TASKS = """
default_task = "intent"
[tasks.intent]
labels = ["refund", "card lost", "余额"]
[tasks.open]
[tasks.names]
kind = "ner"
labels = ["person", "contact"]
[tasks.retell]
kind = "summarization"
"""
BOOK = parse_toml(TaskBook, TASKS, where="tasks.toml", error=BundleError)
PHONE = "13812345678"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[FeedbackStore]:
    with FeedbackStore.open(tmp_path / "feedback.db", create=True) as opened:
        yield opened


def take(store: FeedbackStore, text: str, right: Target, **more: object) -> Receipt:
    intake = FeedbackIntake(store, book=BOOK, guard=Guard())
    return intake.take(Feedback.of(text, right, **more))


def only_row(store: FeedbackStore) -> Feedback:
    (kept,) = store.rows()
    return kept.feedback


def label(word: str = "refund") -> Target:
    return Target((word,))


def test_a_correction_without_a_task_is_about_the_default_one(store: FeedbackStore) -> None:
    assert take(store, "钱呢？", label("余额")).outcome == "accepted"
    assert only_row(store).task == "intent"
    assert take(store, "钱呢？", label("余额"), task="intent").outcome == "duplicate"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        (f"call {PHONE} about my refund", "call [PHONE] about my refund"),
        ("退款打给我，电话１３８１２３４５６７８😀", "退款打给我，电话[PHONE]😀"),
        ("mail jo@example.com", "mail [EMAIL]"),
    ],
)
def test_personal_data_is_masked_before_it_is_written(
    store: FeedbackStore, tmp_path: Path, text: str, kept: str
) -> None:
    receipt = take(store, text, label(), text2=text, source=text[:20])
    assert receipt.text == kept
    row = only_row(store)
    assert (row.text, row.text2) == (kept, kept)
    store.close()
    written = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for secret in (PHONE, "１３８１２３４５６７８", "jo@example.com"):
        assert secret.encode() not in written


def test_a_clean_text_comes_back_with_no_text(store: FeedbackStore) -> None:
    assert take(store, "I want my money back", label()).text == ""


def test_marks_go_with_their_words(store: FeedbackStore) -> None:
    text = f"电话{PHONE}，联系人李雷 Anna"
    spans = (
        SpanMark(2, 13, "contact"),
        SpanMark(text.index("李雷"), text.index("李雷") + 2, "person"),
    )
    said = Target(spans=(SpanMark(text.index("Anna"), len(text), "person"),))
    take(store, text, Target(spans=spans), task="names", predicted=said)
    row = only_row(store)
    assert row.text == "电话[PHONE]，联系人李雷 Anna"
    marked = [(s.type, row.text[s.start : s.end]) for s in row.right.spans or ()]
    assert marked == [("contact", "[PHONE]"), ("person", "李雷")]
    assert [row.text[s.start : s.end] for s in row.predicted.spans or ()] == ["Anna"]


def test_head_and_tail_go_with_their_words(store: FeedbackStore) -> None:
    text = f"{PHONE} is Ann's, she met Bob"
    head, tail = (SpanMark(text.index(w), text.index(w) + 3) for w in ("Ann", "Bob"))
    take(store, text, Target(("knows",)), task="open", head=head, tail=tail)
    row = only_row(store)
    assert row.head is not None
    assert row.tail is not None
    found = [row.text[m.start : m.end] for m in (row.head, row.tail)]
    assert found == ["Ann", "Bob"]


def test_a_correction_whose_mark_would_be_cut_is_refused(store: FeedbackStore) -> None:
    spans = Target(spans=(SpanMark(2, 8, "contact"),))
    with pytest.raises(FeedbackRefused, match="2 to 8") as caught:
        take(store, f"电话{PHONE}", spans, task="names")
    assert PHONE not in caught.value.message + caught.value.hint
    assert list(store.rows()) == []


def test_a_blocked_text_is_refused_and_nothing_of_it_is_kept(store: FeedbackStore) -> None:
    with pytest.raises(FeedbackRefused) as caught:
        take(store, "I will kill you", label())
    assert "kill" not in caught.value.message
    assert list(store.rows()) == []


def test_a_label_with_personal_data_is_refused(store: FeedbackStore) -> None:
    with pytest.raises(FeedbackRefused, match="label"):
        take(store, "whose is it?", label("jo@example.com"), task="open")


def test_an_open_task_takes_any_label(store: FeedbackStore) -> None:
    assert take(store, "whose is it?", label("ours"), task="open").outcome == "accepted"


def test_what_the_model_said_may_be_a_label_of_another_version(store: FeedbackStore) -> None:
    assert take(store, "money", label(), predicted=label("old name")).outcome == "accepted"


@pytest.mark.parametrize(
    ("right", "task", "error"),
    [
        (label("no such label"), "intent", LabelUnknown),
        (label(), "no such task", TaskUnknown),
        (Target(("refund", "余额")), "intent", FeedbackInvalid),
        (Target(spans=()), "intent", FeedbackInvalid),
        (label("person"), "names", FeedbackInvalid),
        (Target(spans=(SpanMark(0, 1, "place"),)), "names", LabelUnknown),
        (label("a summary"), "retell", FeedbackInvalid),
    ],
)
def test_what_does_not_fit_the_task_is_refused_with_a_hint(
    store: FeedbackStore, right: Target, task: str, error: type[InstructRecError]
) -> None:
    with pytest.raises(error) as caught:
        take(store, "some text", right, task=task)
    assert caught.value.hint
    assert "no such" not in caught.value.message.replace("has no such task", "")


def test_nothing_marked_is_a_right_answer(store: FeedbackStore) -> None:
    assert take(store, "hello", Target(spans=()), task="names").outcome == "accepted"
    assert only_row(store).right.spans == ()


def test_without_a_bundle_a_task_must_be_named(store: FeedbackStore) -> None:
    intake = FeedbackIntake(store, book=None, guard=None)
    with pytest.raises(FeedbackInvalid, match="which task"):
        intake.take(Feedback.of("x", label()))
    assert intake.take(Feedback.of(PHONE, label(), task="any")).outcome == "accepted"
    assert only_row(store).text == PHONE  # no guard: the caller's own choice
