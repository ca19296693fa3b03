"""The guard: masking, blocking, overlaps, labels that go out, and what holds for any text."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructrec_deploy.core.result import Answer, Finding, LabelScore
from instructrec_deploy.safety import guard as guard_module
from instructrec_deploy.safety.guard import Guard
from instructrec_deploy.safety.masking import mask_text, masked_span
from instructrec_deploy.safety.overlaps import resolve_overlaps
from tests.policies import guard_of
from tests.unit.safety import made_up as made

GUARD = Guard()
_FLAGS = "\n".join(f'{name} = "flag"' for name in GUARD.policy.input.personal_data.model_dump())
FLAG_ALL = guard_of(f"[input.personal_data]\n{_FLAGS}")
# Text around a value that neither adds digits to it nor is taken for a part of it.
AROUND = st.text(
    st.characters(
        exclude_categories=("Cs", "Nd", "No", "Nl", "Lm", "Mn", "Me", "Cf"),
        exclude_characters="*•]@._%+-'&$¥€£#/,元块万亿美円",
    ),
    max_size=20,
)
VALUES = {
    "PHONE": made.cn_mobile,
    "CREDIT_CARD": made.card,
    "CN_ID": made.cn_id,
    "IBAN": made.iban,
    "EMAIL": made.email,
    "IP": made.ipv4,
}


def test_a_masked_text_names_the_type_in_place_of_the_value() -> None:
    guarded = GUARD.check_input(
        "我叫小明，手机１３８-１２３４-５６７８，邮箱ming@mail.example.cn😀"
    )
    assert guarded.text == "我叫小明，手机[PHONE]，邮箱[EMAIL]😀"
    assert guarded.verdict.action == "mask"
    assert guarded.verdict.policy_version == "default-1"


@pytest.mark.parametrize("text", ["I lost my card", "我的卡丢了，怎么办？😀", "what the fuck"])
def test_an_unmasked_text_comes_back_as_the_same_object(text: str) -> None:
    assert GUARD.check_input(text).text is text


def test_a_blocked_text_does_not_go_on() -> None:
    guarded = GUARD.check_input("I will kill you, call me: 13812345678")
    assert guarded.is_blocked
    assert guarded.text == ""
    assert [f.category for f in guarded.verdict.findings] == ["threat", "PHONE"]


def test_an_allowed_type_is_not_looked_for() -> None:
    guard = guard_of('[input.personal_data]\nEMAIL = "allow"')
    assert guard.check_input("mail bob@mail.example.com").verdict.findings == ()


def test_content_can_be_masked_too() -> None:
    guard = guard_of('[input.content]\nprofanity = "mask"')
    assert guard.check_input("oh shit, 卧槽").text == "oh [PROFANITY], [PROFANITY]"


def test_the_strongest_action_wins_an_overlap_and_then_the_longest_span() -> None:
    flag = Finding("profanity", "a", "flag", 0, 20)
    short = Finding("PHONE", "b", "mask", 5, 9)
    long = Finding("EMAIL", "c", "mask", 3, 12)
    apart = Finding("profanity", "d", "flag", 12, 14)
    assert resolve_overlaps([flag, short, apart, long]) == (long, apart)


def test_a_finding_for_a_person_is_not_lost_under_a_stronger_one() -> None:
    weak = Finding("profanity", "a", "flag", 4, 8, review=True)
    strong = Finding("threat", "b", "block", 0, 6)
    apart = Finding("profanity", "c", "flag", 8, 9)
    assert resolve_overlaps([weak, strong, apart]) == (strong._replace(review=True), apart)


def test_a_number_inside_an_address_is_part_of_the_address() -> None:
    assert GUARD.check_input("13812345678@qq.example.com").text == "[EMAIL]"


def test_a_mask_leaves_the_rest_of_the_text_in_place() -> None:
    findings = (Finding("PHONE", "r", "mask", 2, 4), Finding("x", "r", "flag", 5, 6))
    assert mask_text("ab12cdef", findings) == "ab[PHONE]cdef"


def test_a_label_that_goes_out_is_masked() -> None:
    scores = (LabelScore("ask bob@mail.example.com", 0.7), LabelScore("other", 0.3))
    answer, verdict = GUARD.check_output(Answer("t", scores[0].label, 0.7, scores, "p"))
    assert answer.label == "ask [EMAIL]"
    assert [s.label for s in answer.scores] == ["ask [EMAIL]", "other"]
    assert (verdict.action, verdict.direction) == ("mask", "output")
    assert (verdict.findings[0].start, verdict.findings[0].end) == (4, 24)


def test_a_finding_about_another_label_has_no_span() -> None:
    scores = (LabelScore("other", 0.7), LabelScore("ask bob@mail.example.com", 0.3))
    answer, verdict = GUARD.check_output(Answer("t", "other", 0.7, scores))
    assert answer.scores[1].label == "ask [EMAIL]"
    assert (verdict.findings[0].start, verdict.findings[0].end) == (-1, -1)


def test_a_blocked_label_empties_the_answer() -> None:
    scores = (LabelScore("fine", 0.9), LabelScore("I will kill you", 0.1))
    answer, verdict = GUARD.check_output(Answer("t", "fine", 0.9, scores))
    assert (answer.label, answer.score, answer.scores) == ("", 0.0, ())
    assert verdict.action == "block"


def test_all_labels_of_an_answer_are_checked_whether_or_not_they_have_a_score() -> None:
    given = Answer("t", "fine", 0.9, (), labels=("fine", "I will kill you"))
    blocked, verdict = GUARD.check_output(given)
    assert (blocked.label, blocked.labels, verdict.action) == ("", (), "block")
    given = Answer("t", "fine", 0.9, (), labels=("fine", "jo@example.com", "其他"))
    masked, verdict = GUARD.check_output(given)
    assert (masked.labels, verdict.action) == (("fine", "[EMAIL]", "其他"), "mask")


def test_an_answer_without_findings_is_the_same_object() -> None:
    answer = Answer("t", "lost card", 0.9, (LabelScore("lost card", 0.9), LabelScore("丢卡", 0.1)))
    assert GUARD.check_output(answer)[0] is answer


@pytest.mark.parametrize(("fail", "action"), [("closed", "block"), ("open", "flag")])
def test_a_broken_check_fails_as_the_policy_says(
    fail: str, action: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object) -> list[object]:
        raise ValueError("secret words")

    monkeypatch.setattr(guard_module, "find_personal_data", broken)
    guarded = guard_of(f'[input]\nfail = "{fail}"').check_input("secret words")
    assert guarded.verdict.action == action
    assert guarded.text == ("" if action == "block" else "secret words")
    assert "secret" not in caplog.text


def test_threads_share_a_guard() -> None:
    rng = random.Random(1)
    texts = [f"手机{made.cn_mobile(rng)} {made.email(rng)}" for _ in range(200)]
    alone = [GUARD.check_input(text) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(GUARD.check_input, texts)) == alone


@settings(deadline=None)
@given(st.sampled_from(sorted(VALUES)), st.integers(0, 10**6), AROUND, AROUND, st.booleans())
def test_a_planted_value_never_survives_masking(
    category: str, seed: int, before: str, after: str, is_wide: bool
) -> None:
    value = VALUES[category](random.Random(seed))
    planted = made.full_width(value) if is_wide else value
    text = f"{before} {planted} {after}"
    guarded = GUARD.check_input(text)
    assert planted not in guarded.text
    assert value not in guarded.text


@settings(deadline=None)
@given(st.text(max_size=80) | st.text("0123456789 -+@.()电话１３x\u200b", max_size=80))
def test_spans_are_sorted_in_range_and_apart_for_any_text(text: str) -> None:
    guarded = FLAG_ALL.check_input(text)
    done = 0
    for finding in guarded.verdict.findings:
        assert done <= finding.start < finding.end <= len(text)
        done = finding.end
    if guarded.verdict.action != "block":
        assert guarded.text is text


@settings(deadline=None)
@given(st.text(max_size=80) | st.text("0123456789 -+@.()电话１３x\u200b", max_size=80))
def test_a_text_is_changed_only_inside_the_spans(text: str) -> None:
    guarded = GUARD.check_input(text)
    if guarded.is_blocked:
        return
    kept, done = [], 0
    for finding in guarded.verdict.findings:
        if finding.action == "mask":
            kept += [text[done : finding.start], f"[{finding.category}]"]
            done = finding.end
    assert guarded.text == "".join([*kept, text[done:]])
    assert GUARD.check_input(text) == guarded


@st.composite
def masked_spans(draw: st.DrawFn) -> tuple[str, list[Finding], int, int]:
    """A text, findings to mask or to flag in it, and a span that lies anywhere."""
    text = draw(st.text(min_size=1, max_size=30))
    borders = sorted(draw(st.lists(st.integers(0, len(text)), max_size=8, unique=True)))
    findings = [
        Finding(draw(st.sampled_from(["IP", "PHONE", "CREDIT_CARD"])), "r", action, start, end)
        for start, end in zip(borders[::2], borders[1::2], strict=False)
        if (action := draw(st.sampled_from(["mask", "mask", "flag"])))
    ]
    start = draw(st.integers(0, len(text) - 1))
    return text, findings, start, draw(st.integers(start + 1, len(text)))


@given(masked_spans())
def test_a_span_moves_with_what_is_masked_before_and_inside_it(
    given_: tuple[str, list[Finding], int, int],
) -> None:
    text, findings, start, end = given_
    masked = mask_text(text, findings)
    moved_start, moved_end = masked_span(start, end, findings)
    assert 0 <= moved_start < moved_end <= len(masked)
    hit = [f for f in findings if f.action == "mask" and f.start < end and f.end > start]
    wide_start = min([start, *(f.start for f in hit)])
    wide_end = max([end, *(f.end for f in hit)])
    inside = [f._replace(start=f.start - wide_start, end=f.end - wide_start) for f in hit]
    assert masked[moved_start:moved_end] == mask_text(text[wide_start:wide_end], inside)


@pytest.mark.parametrize(
    ("text", "span", "seen"),
    [
        ("致电13812345678，张三住在北京", (14, 16), "张三"),
        ("致电13812345678，张三", (2, 13), "[PHONE]"),
        ("致电13812345678，张三", (5, 8), "[PHONE]"),
        ("致电13812345678，张三", (0, 4), "致电[PHONE]"),
        ("mail ming@mail.example.cn 😀 Ann and Bob", (28, 31), "Ann"),
    ],
)
def test_a_guarded_text_says_where_a_part_of_it_stands_now(
    text: str, span: tuple[int, int], seen: str
) -> None:
    guarded = GUARD.check_input(text)
    assert guarded.text[slice(*guarded.span(*span))] == seen
