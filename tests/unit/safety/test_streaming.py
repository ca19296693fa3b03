"""The guard on a text in pieces: what goes out and the verdict are those of the whole text."""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from instructrec_deploy.core.result import Verdict
from instructrec_deploy.safety import guard as guard_module
from instructrec_deploy.safety import reach, streaming
from instructrec_deploy.safety.guard import Guard, GuardedText
from instructrec_deploy.safety.keys import SafetyKeys
from instructrec_deploy.safety.masking import mask_text
from instructrec_deploy.safety.streaming import StreamGuard
from tests.policies import guard_of
from tests.unit.safety import made_up as made

RNG = random.Random(20261126)
GUARD = Guard()
REPLACING = guard_of('[output.operators]\ndefault = "replace"')
PEM = "-----BEGIN RSA PRIVATE KEY-----\nMIIEow\nIBAAKC\n-----END RSA PRIVATE KEY-----"
JWT = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N"
HAN = str.maketrans("0123456789", "零一二三四五六七八九")
_MAKERS = (made.cn_mobile, made.cn_id, made.card, made.iban, made.email, made.ipv4, made.cn_uscc)
_MAKERS += (made.cn_plate, made.cn_passport, made.us_ssn, made.uk_nino, made.uk_nhs, made.es_dni)
_MAKERS += (made.de_tax_id, made.fr_nir, made.nl_bsn, made.it_fiscal, made.pl_pesel)
VALUES = [make(RNG) for make in _MAKERS for _ in range(2)]
PHONE = made.cn_mobile(RNG)
FRAGMENTS = [
    *VALUES,
    *map(made.full_width, VALUES[:8]),
    *("\u200b".join(value) for value in VALUES[:8]),
    *(" ".join(value) for value in VALUES[:14]),
    *("".join(f"{digit}\ufe0f\u20e3" for digit in PHONE), PHONE.translate(HAN), "·".join(PHONE)),
    *("212-555-0143", "(0755) 2345 6789", "+44 20 7946 0018", "010-65529988转801", "9472 7916"),
    *(made.key(RNG, "ghp_", 36), made.key(RNG, "sk-", 24), JWT, PEM, PEM[:60], "sk-", "eyJ"),
    *("https://h.io/a?token=abcd1234&x=1", "https://u:p4ss@h.io/b", "http://x.com/about"),
    *("上海市浦东新区人民路12号3栋501室", "人民路", "12号", "北京市朝阳区建国路八号"),
    *("12 Main St", ", Apt 4, Springfield, IL 62701", "PO Box 1234", "Flat 3, "),
    *("bob at mail dot com", "bob [at] mail.example.com", "bob艾特example点com", "one two three "),
    *(
        "ann [dot] lee [at] mail [dot] com",
        "ann点li艾特",
        " dot ",
        "加微 ",
        "vx：ab_12345",
        "qq 123456",
    ),
    *("初始口令为“", "cLfPg$2ak8", "pwd ", "key:", made.key(RNG, "AIza", 35), " call me"),
    *("password is ", "hunter22!", "'a b1 c'", "密码是", "API_KEY=", "p@ssw0rd: ", "bearer "),
    *(
        "电话",
        "call me at ",
        "(NHS)",
        "nhs number ",
        "passport ",
        "护照",
        "plate ",
        "SSN ",
        "steuer",
    ),
    *(
        "order no. ",
        "订单号",
        "元",
        "$",
        "version ",
        "fax",
        " (mobile)",
        "ORD-",
        "@",
        "://",
        "-----",
    ),
    *("I will ", "kill you", "you are a ", "idiot", "f u c k", "sh1t", "fuuuck", "fu*ck", "f$$k"),
    *(
        "我要杀了你",
        "傻 逼",
        "傻*",
        "逼",
        "不想活了",
        "我",
        "want to die",
        " of hunger",
        "你 这 个 废 物",
    ),
    *(
        "“",
        "”",
        '"',
        "「",
        "」",
        "рaypаl",
        "привет ",
        "é",
        "㎏",
        "\u0301",
        "\u200b",
        "\u20e3",
        "😀",
    ),
    *(
        " ",
        "\n",
        "，",
        "。",
        ", ",
        ". ",
        "the quick brown fox ",
        "今天天气很好",
        "1",
        "0",
        "一",
        "a",
    ),
]
PIECES = st.sampled_from(FRAGMENTS) | st.text(
    "0123456789 -.,@abzIOl一二路号\u200b１é!'\"$*", max_size=9
)
TEXTS = st.lists(PIECES, min_size=1, max_size=6).map("".join)


def stream(guard: Guard, text: str, cuts: Sequence[int]) -> tuple[str, Verdict]:
    """What goes out of a text cut at these places, and the verdict."""
    streamed = StreamGuard(guard)
    borders = [0, *cuts, len(text)]
    out = [streamed.feed(text[a:b]) for a, b in itertools.pairwise(borders)]
    rest, verdict = streamed.finish()
    return "".join([*out, rest]), verdict


def expected(guarded: GuardedText, text: str) -> str:
    """What may go out: the masked text; where it is blocked, what stands before."""
    findings = guarded.verdict.findings
    blocked = [f.start for f in findings if f.action == "block"]
    if not blocked:
        return guarded.text
    return mask_text(text[: blocked[0]], [f for f in findings if f.start < blocked[0]])


def assert_same(guard: Guard, text: str, cuts: Sequence[int]) -> None:
    whole = guard.check_text(text, "output")
    assert stream(guard, text, cuts) == (expected(whole, text), whole.verdict)


@st.composite
def cut_texts(draw: st.DrawFn) -> tuple[str, list[int]]:
    """A text and where it is cut: now and then between all characters."""
    text = draw(TEXTS)
    if draw(st.integers(0, 7)) == 0:
        return text, list(range(len(text)))
    return text, sorted(draw(st.lists(st.integers(0, len(text)), max_size=12)))


@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.too_slow])
@given(cut_texts())
@example(("want to die*want to die", list(range(23))))
def test_every_chunking_lets_out_what_the_whole_text_does(given_: tuple[str, list[int]]) -> None:
    assert_same(GUARD, *given_)


@pytest.mark.slow
@settings(deadline=None, max_examples=10_000, suppress_health_check=list(HealthCheck))
@given(cut_texts())
def test_ten_thousand_chunkings_let_out_what_the_whole_text_does(
    given_: tuple[str, list[int]],
) -> None:
    assert_same(GUARD, *given_)


@settings(deadline=None, max_examples=40)
@given(cut_texts())
def test_values_are_numbered_as_in_the_whole_text(given_: tuple[str, list[int]]) -> None:
    assert_same(REPLACING, *given_)


@pytest.mark.parametrize(
    "text",
    [
        "bob at mail dot combob [at] mail.example.combob at mail dot com",
        "一$8.DE46581653571217257192",  # leetspeak elsewhere makes no word of $8
        "PO Box 1234bob at mail dot com18646983261",  # for a while it looks like an address of mail
    ],
)
def test_what_comes_does_not_change_what_was_let_out(text: str) -> None:
    assert_same(GUARD, text, range(len(text)))


@pytest.mark.parametrize("value", [*VALUES, PEM, JWT, "I will kill you", "password is hunter22"])
def test_no_character_of_a_value_goes_out_before_it_ends(value: str) -> None:
    streamed = StreamGuard(GUARD)
    before = "NHS, SSN, steuer-id, bsn, pesel, passport: "
    assert before.startswith("".join(map(streamed.feed, before + value)))


@pytest.mark.parametrize(
    ("text", "held"),
    [
        ("The weather is fine today, let us go out and", "and"),
        ("今天天气很好，我们出去走走吧。真", "真"),
        ("My number was 138", "138"),
        ("I think that I wi", "I wi"),
        ("see https://example.com/a/b", "https://example.com/a/b"),
    ],
)
def test_only_what_a_rule_could_still_match_is_held(text: str, held: str) -> None:
    streamed = StreamGuard(GUARD)
    assert "".join(map(streamed.feed, text)) + held == text


@pytest.mark.parametrize("mark", ["·", "*", "〇", "○", "一", "杠", "-", " ", "~/"])
def test_digits_apart_are_read_in_one_way_only(mark: str) -> None:
    """Marks that could be read in two ways took twice as long each: this would not end."""
    assert_same(GUARD, "1".join([mark] * 60) + "路a", [])


def test_after_a_block_nothing_goes_out_and_the_verdict_is_complete() -> None:
    text = f"well, call {PHONE}. I will kill you. bye, write to bob@mail.example.com"
    streamed = StreamGuard(GUARD)
    out = "".join(map(streamed.feed, text))
    assert streamed.is_blocked
    assert out == "well, call [PHONE]. "
    assert streamed.finish() == ("", GUARD.check_text(text, "output").verdict)


@pytest.mark.parametrize("direction", ["input", "output"])
def test_the_policy_of_the_direction_is_asked(direction: str) -> None:
    guard = guard_of('[input.personal_data]\nPHONE = "allow"')
    streamed = StreamGuard(guard, direction=direction)  # type: ignore[arg-type]
    out = streamed.feed(f"call {PHONE} now") + streamed.finish()[0]
    assert (PHONE in out) == (direction == "input")


def test_tokens_that_a_text_brings_are_escaped_in_pieces_too() -> None:
    pytest.importorskip("cryptography")
    guard = guard_of(
        '[input.operators]\ndefault = "encrypt"',
        keys=SafetyKeys.of(b"k" * 32, where="here"),
    )
    text = f"so [PHONE:{'abcd' * 10}] is {PHONE}"
    streamed = StreamGuard(guard, direction="input")
    out = "".join(map(streamed.feed, text)) + streamed.finish()[0]
    assert out == guard.check_input(text).text


@pytest.mark.parametrize(("fail", "action"), [("closed", "block"), ("open", "flag")])
def test_what_stays_undecided_for_too_long_counts_as_a_broken_check(fail: str, action: str) -> None:
    guard = guard_of(f'[output]\nfail = "{fail}"')
    text = "see: " + "1 2" * (reach.HOLD // 2)
    streamed = StreamGuard(guard)
    out = "".join(streamed.feed(text[at : at + 4096]) for at in range(0, len(text), 4096))
    rest, verdict = streamed.finish()
    assert (verdict.action, verdict.findings[-1].category) == (action, "guard_failure")
    assert out + rest == ("see: " if fail == "closed" else text)


def test_a_broken_check_lets_nothing_more_out(monkeypatch: pytest.MonkeyPatch) -> None:
    streamed = StreamGuard(GUARD)
    streamed.feed("fine so far. ")

    def broken(*_: object) -> list[object]:
        raise ValueError("secret words")

    monkeypatch.setattr(guard_module, "find_personal_data", broken)
    assert streamed.feed("secret words and more") == ""
    assert streamed.is_blocked


PROSE = "The parcel came on Monday, 3 days late. 客服说明天退款，请等一下。 "


@pytest.mark.parametrize("piece", [PROSE, "1 2 3 ", "138 1234 5678, ", "eyJhbGciOi", "a\u200b"])
def test_work_and_memory_grow_with_the_text_alone(
    piece: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = 0
    fold = streaming.fold

    def counting(text: str) -> object:
        nonlocal looked_at
        looked_at += len(text)
        return fold(text)

    monkeypatch.setattr(streaming, "fold", counting)
    counts = []
    for n_chars in (1_024, 4_096):
        streamed, looked_at = StreamGuard(GUARD), 0
        for at in range(0, n_chars, 8):
            streamed.feed(piece * 2 if at == 0 else (piece * n_chars)[at : at + 8])
            assert len(streamed._text) <= 2 * reach.HOLD + 2 * reach.CONTEXT
        counts.append(looked_at)
    assert counts[1] < 6 * counts[0]  # four times the text
