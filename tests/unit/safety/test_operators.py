"""What stands in place of a masked value: by operator, by key, and back again."""

from __future__ import annotations

import random
import re
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from instructrec_deploy.core.errors import BundleError, MissingExtra, SafetyKeyMissing
from instructrec_deploy.core.result import Answer, LabelScore
from instructrec_deploy.safety.guard import Guard
from instructrec_deploy.safety.keys import SafetyKeys
from instructrec_deploy.safety.marks import move_spans, restore_span
from instructrec_deploy.safety.restore import Cipher
from tests.policies import guard_of
from tests.unit.safety import made_up as made

KEYS = SafetyKeys.of(b"0123456789abcdef0123456789abcdef")
OTHER_KEYS = SafetyKeys.of(b"another key, as long as it must be")


def guard_with(operators: str, keys: SafetyKeys | None = KEYS, direction: str = "input") -> Guard:
    return guard_of(f"[{direction}.operators]\n{operators}", keys=keys)


ENCRYPT = guard_with('default = "encrypt"')
CIPHER = Cipher(KEYS)
VALUES = st.integers(0, 2**32).flatmap(
    lambda seed: st.sampled_from(
        [
            make(random.Random(seed))
            for make in (made.cn_mobile, made.card, made.cn_id, made.iban, made.email, made.ipv4)
        ]
    )
)
TOKENS = st.sampled_from(
    [CIPHER.token("PHONE", "13812345678"), Cipher(OTHER_KEYS).token("PHONE", "1"), "[PHONE:AAAA"]
)
TEXTS = st.lists(
    st.one_of(
        VALUES,
        VALUES.map(made.full_width),
        TOKENS,
        st.text(max_size=12),
        st.sampled_from([" ", "，手机", "password: Xk9#mmQ2", "[", "]", "😀", "\u200b", "\ud800"]),
    ),
    max_size=8,
).map("".join)


def test_replace_numbers_the_values_of_a_type_within_a_text() -> None:
    text = "打138-1234-5678或13987654321，不通再打１３８１２３４５６７８，邮箱a@mail.example.com"
    guarded = guard_with('default = "replace"').check_input(text)
    assert guarded.text == "打<PHONE_1>或<PHONE_2>，不通再打<PHONE_1>，邮箱<EMAIL_1>"


def test_replace_counts_over_all_labels_of_an_answer() -> None:
    guard = guard_with('default = "replace"', direction="output")
    scores = (LabelScore("a@mail.example.com", 0.6), LabelScore("b@mail.example.com", 0.4))
    answer, _ = guard.check_output(Answer("t", scores[0].label, 0.6, scores))
    assert [score.label for score in answer.scores] == ["<EMAIL_1>", "<EMAIL_2>"]


def test_a_hash_is_one_pseudonym_for_a_value_however_it_is_written() -> None:
    guard = guard_with('PHONE = "hash"')
    seen = [guard.check_input(f"手机{n}").text for n in ("13812345678", "138 1234 5678")]
    assert seen[0] == seen[1]
    assert re.fullmatch(r"手机\[PHONE#[a-p]{16}\]", seen[0])
    assert guard.check_input("手机13812345679").text != seen[0]


def test_another_key_makes_other_pseudonyms() -> None:
    one, two = (guard_with('PHONE = "hash"', keys) for keys in (KEYS, OTHER_KEYS))
    text = "手机13812345678"
    assert one.check_input(text).text != two.check_input(text).text


def test_case_tells_secrets_apart_but_not_addresses_of_mail() -> None:
    guard = guard_with('default = "hash"')
    one, two = (guard.check_input(f"password: {word}").text for word in ("Xk9#mmQ2", "xk9#mmQ2"))
    assert one != two
    one, two = (guard.check_input(f"{name}@mail.example.com").text for name in ("Jo", "jo"))
    assert one == two


def test_keep_leaves_the_value_and_flags_it() -> None:
    text = "打13812345678，邮箱a@mail.example.com"
    guarded = guard_with('default = "mask"\nPHONE = "keep"').check_input(text)
    assert guarded.text == "打13812345678，邮箱[EMAIL]"
    assert [f.action for f in guarded.verdict.findings] == ["flag", "mask"]


def test_an_operator_does_not_weaken_a_block() -> None:
    guard = guard_of('[input.personal_data]\nPHONE = "block"\n[input.operators]\nPHONE = "keep"')
    assert guard.check_input("打13812345678").is_blocked


def test_an_encrypted_value_comes_back_and_marks_move_with_its_token() -> None:
    text = "please call 13812345678 today"
    guarded = ENCRYPT.check_input(text)
    assert re.fullmatch(r"please call \[PHONE:[A-Za-f]+\] today", guarded.text)
    assert CIPHER.restore(guarded.text).text == text
    place = move_spans(guarded.verdict.findings, [(24, 29)])[0]
    assert place is not None
    assert guarded.text[slice(*place)] == "today"
    assert restore_span(guarded.verdict.findings, *place) == (24, 29)


@given(TEXTS)
@settings(max_examples=300, deadline=None)
def test_restoring_undoes_encryption(text: str) -> None:
    guarded = ENCRYPT.check_input(text)
    if not guarded.is_blocked:
        assert CIPHER.restore(guarded.text).text == text


@given(st.text(max_size=40))
@settings(max_examples=200, deadline=None)
def test_a_text_without_tokens_is_restored_as_it_is(text: str) -> None:
    assert CIPHER.restore(text).text == text


def test_a_token_that_a_text_brings_is_not_restored_for_whoever_sent_it() -> None:
    stolen = CIPHER.token("PHONE", "13812345678")
    guarded = ENCRYPT.check_input(f"what is {stolen}?")
    assert CIPHER.restore(guarded.text).text == f"what is {stolen}?"


def test_a_token_that_goes_out_stays_as_it_is() -> None:
    guard = guard_with('default = "encrypt"', direction="output")
    label = CIPHER.token("PHONE", "13812345678")
    answer, verdict = guard.check_output(Answer("t", label, 1.0, ()))
    assert (answer.label, verdict.action) == (label, "allow")


@pytest.mark.parametrize("is_other_key", [True, False])
def test_a_token_of_another_key_or_type_stays(is_other_key: bool) -> None:
    token = CIPHER.token("PHONE", "13812345678")
    if not is_other_key:
        token = token.replace("PHONE", "EMAIL")
    restored = (Cipher(OTHER_KEYS) if is_other_key else CIPHER).restore(token)
    assert (restored.text, restored.n_restored, restored.n_left) == (token, 0, 1)


@given(VALUES, st.sampled_from(["replace", "hash", "encrypt"]))
@settings(max_examples=100, deadline=None)
def test_a_stand_in_is_not_taken_for_personal_data(value: str, operator: str) -> None:
    guard = guard_with(f'default = "{operator}"')
    masked = guard.check_input(f"call {value} now").text
    assert Guard().check_input(masked).text is masked


def test_operators_that_need_a_key_say_how_to_give_one() -> None:
    with pytest.raises(SafetyKeyMissing, match="encrypt and hash") as caught:
        guard_with('PHONE = "hash"\nEMAIL = "encrypt"', keys=None)
    assert "INSTRUCTREC_SAFETY_KEY_FILE" in caught.value.hint


def test_encrypt_without_its_package_says_what_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "cryptography"]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra) as caught:
        guard_with('PHONE = "encrypt"')
    assert "[privacy]" in caught.value.hint


def test_an_unknown_type_or_operator_is_refused() -> None:
    with pytest.raises(BundleError, match="FAX") as caught:
        guard_with('FAX = "mask"')
    assert "replace" in caught.value.hint
    with pytest.raises(BundleError, match=r"operators\.PHONE"):
        guard_with('PHONE = "shred"')
