"""Personal data: what is found, in which span, and what is left alone."""

from __future__ import annotations

import random
import time

import pytest

from instructrec_deploy.safety.guard import Guard
from instructrec_deploy.safety.personal_data import RECOGNIZERS, find_personal_data
from instructrec_deploy.safety.policy import MODEL_TYPES
from instructrec_deploy.safety.recognizers.bank import is_card_number, is_iban
from instructrec_deploy.safety.recognizers.china import is_cn_id
from tests.unit.safety import made_up as made

RNG = random.Random(20240601)
GUARD = Guard()


def _positives() -> list[tuple[str, str, str]]:
    """(template, value, type): the value must be found in the template, and only it."""
    mobile, resident, visa = made.cn_mobile(RNG), made.cn_id(RNG), made.card(RNG)
    union, amex = made.card(RNG, "622848", 19), made.card(RNG, "37", 15)
    account, mail, address = made.iban(RNG), made.email(RNG), made.ipv4(RNG)
    with_x = made.cn_id(RNG, check="X")
    return [
        ("电话{}请回电", mobile, "PHONE"),
        ("我的手机号是{}。", made.cn_mobile(RNG), "PHONE"),
        ("{}", made.cn_mobile(RNG), "PHONE"),
        ("My number is {}.", made.cn_mobile(RNG), "PHONE"),
        ("手机：{}，微信同号", "+86 " + made.cn_mobile(RNG), "PHONE"),
        ("请打{}", "0086" + made.cn_mobile(RNG), "PHONE"),
        ("联系人{}", made.grouped(made.cn_mobile(RNG), 3, 4, 4), "PHONE"),
        ("联系人{}", made.grouped(made.cn_mobile(RNG), 3, 4, 4, mark="-"), "PHONE"),
        ("请拨{}", "(+86)" + made.grouped(made.cn_mobile(RNG), 3, 4, 4), "PHONE"),
        ("打我{}", made.grouped(made.cn_mobile(RNG), *(1,) * 11), "PHONE"),
        ("号码{}哦", made.full_width(made.cn_mobile(RNG)), "PHONE"),
        ("号码{}哦", made.full_width(made.grouped(mobile, 3, 4, 4, mark="-")), "PHONE"),
        ("加微信{}😀", "\u200b".join(made.cn_mobile(RNG)), "PHONE"),
        ("tel{}", made.cn_mobile(RNG), "PHONE"),
        ("座机{}", "010-65529988", "PHONE"),
        ("公司（{}）", "0755 2345 6789", "PHONE"),
        ("{}", "(021) 6053-3447", "PHONE"),
        ("办公室 {}", "010-65529988转801", "PHONE"),
        ("电话是{}，", "075523456789", "PHONE"),
        ("call {} now", "(212) 555-0143", "PHONE"),
        ("call {} now", "212-555-0143", "PHONE"),
        ("at {}.", "212.555.0143", "PHONE"),
        ("or {}?", "+1 212 555 0143", "PHONE"),
        ("my cell: {}", "2125550143", "PHONE"),
        ("{} call me anytime", "2125550143", "PHONE"),
        ("my new digits >> {}", "2125550143", "PHONE"),
        ("ring {} please", "07911 123456", "PHONE"),
        ("it is {} 2 people", "+44 20 7946 0018", "PHONE"),
        ("office {}", "020 7946 0018", "PHONE"),
        ("write or dial {} today", "+49 30 901820", "PHONE"),
        ("mon numéro est le {}", "+33 1 42 68 53 00", "PHONE"),
        ("Please call me on {}", "9472 7916", "PHONE"),
        ("my card {} was declined", visa, "CREDIT_CARD"),
        ("my card {} exp 12/25", made.grouped(visa, 4, 4, 4, 4), "CREDIT_CARD"),
        ("my card {} 123", made.grouped(visa, 4, 4, 4, 4, mark="-"), "CREDIT_CARD"),
        ("卡号{}被盗刷", union, "CREDIT_CARD"),
        ("银行卡{}", made.full_width(union), "CREDIT_CARD"),
        ("卡号：{}", made.grouped(union, 4, 4, 4, 4, 3), "CREDIT_CARD"),
        ("amex {}", made.grouped(amex, 4, 6, 5), "CREDIT_CARD"),
        ("{}", made.grouped(visa, *(1,) * 16), "CREDIT_CARD"),
        ("身份证{}丢了", resident, "CN_ID"),
        ("身份证号：{}", with_x, "CN_ID"),
        ("我的身份证{}。", with_x.lower(), "CN_ID"),
        ("ID {}", made.grouped(resident, 6, 8, 4), "CN_ID"),
        ("证件{}", made.full_width(resident), "CN_ID"),
        ("证件{}", "\u2060".join(with_x), "CN_ID"),
        ("pay to {} thanks", account, "IBAN"),
        ("IBAN: {} BIC follows", made.grouped(account, 4, 4, 4, 4, 4, 2), "IBAN"),
        ("请汇款到{}", account.lower(), "IBAN"),
        ("write to {}.", mail, "EMAIL"),
        ("邮箱{}，谢谢", mail, "EMAIL"),
        ("邮箱：{}", made.full_width(mail), "EMAIL"),
        ("<{}>", "o'brien+news@mail.example.co.uk", "EMAIL"),
        ("😀{}😀", mail, "EMAIL"),
        ("qq邮箱{}", "12345678@qq.example.com", "EMAIL"),
        ("--{}", mail, "EMAIL"),
        ("Contact" + 70 * "-" + "{}", mail, "EMAIL"),
        ("client version {}", "121.226.197.195", "IP"),  # too large to be a version
        ("from {}:8080", address, "IP"),
        ("来自{}的登录", address, "IP"),
        ("host {}", "2a00:1450:4001:81b::200e", "IP"),
    ]


@pytest.mark.parametrize(("template", "value", "category"), _positives())
def test_a_planted_value_is_found_in_its_exact_span(
    template: str, value: str, category: str
) -> None:
    text = template.format(value)
    findings = GUARD.check_input(text).verdict.findings
    assert [(f.category, text[f.start : f.end]) for f in findings] == [(category, value)]


@pytest.mark.parametrize(
    "text",
    [
        "order 1234567890123456 has not arrived",
        "订单号4111111111111112",
        "订单号：13812345678",
        "单号 13812345678 什么时候发货",
        "order number 212-555-0143",
        "tracking no: 2125550143",
        "ORD-13812345678",
        "case no. 13812345678",
        "item 2125550143 in stock",
        "SF1234567890123",
        "2023-01-15 12:30:45",
        "20230115123045",
        "2023年1月15日 12:30",
        "12:00 30 01 2023 2024",
        "08:00 2023-01-15 10:15",
        "1690000000",
        "1690000000000",
        "1700000000.123456",
        "$13812345678",
        "13812345678元",
        "人民币 13,812,345,678",
        "pi is 3.14159265358979323846",
        "0.13812345678",
        "version 4.18.30.7",
        "v4.18.30.7",
        "版本 12.22.33.44",
        "固件1.0.4.27有bug",
        "section 1.2.3.4",
        "127.0.0.1 192.168.10.20 10.1.2.3 172.16.5.4 203.0.113.77",
        "2001:db8::1 and fe80::1",
        "ISBN 978-7-111-12345-6",
        "9787302512345",
        "0-306-40615-2",
        "400-820-8820",
        "4008208820",
        "请拨打400-820-8820或95588",
        "拨打110、119、120或12315",
        "call 911 or 1-800-555-0199",
        "800-555-0199",
        "+1 (888) 555-0199",
        "0800 123 4567",
        "10086",
        "@手机用户2816203075",
        "138****5678",
        "4111 **** **** 1111",
        "b***@example.com",
        "xxx@example.com",
        "[PHONE] and [EMAIL]",
        "logo@2x.png",
        "git@github.com:owner/repo.git",
        "npm i react@18.2.0",
        "@mention me",
        "std::vector<int> a::b",
        "550e8400-e29b-41d4-a716-446655440000",
        "DE00123456789012345678",
        "4444 4444 4444 4444",
        "110101199013078512",
        "sizes 38 39 40 41 42 43",
        "(40.712812, -74.006015)",
        "一二三四五六七",
    ],
)
def test_what_only_looks_like_personal_data_is_left_alone(text: str) -> None:
    assert GUARD.check_input(text).verdict.findings == ()


def test_two_numbers_side_by_side_are_both_found() -> None:
    first, second = made.cn_mobile(RNG), made.cn_mobile(RNG)
    for mark in (" ", "/", "、", "，", ";", "-", "\n", "和"):
        assert GUARD.check_input(f"{first}{mark}{second}").text == f"[PHONE]{mark}[PHONE]"


def test_a_wrong_check_character_makes_no_resident_id() -> None:
    number = made.cn_id(RNG)
    wrong = number[:17] + ("1" if number[17] != "1" else "2")
    assert is_cn_id(number)
    assert not is_cn_id(wrong)


@pytest.mark.parametrize("head", ["00", "16", "49", "99"])
def test_an_unknown_province_makes_no_resident_id(head: str) -> None:
    rng = random.Random(3)
    assert not any(is_cn_id(head + made.cn_id(rng)[2:]) for _ in range(100))


def test_every_made_up_value_passes_its_validator() -> None:
    rng = random.Random(5)
    for _ in range(200):
        assert is_cn_id(made.cn_id(rng))
        assert is_iban(made.iban(rng))
        assert is_card_number(made.card(rng, "5425", 16))
        assert is_card_number(made.card(rng, "621700", 19))


def test_one_wrong_digit_breaks_a_card() -> None:
    rng = random.Random(7)
    number = made.card(rng)
    for index in range(1, 16):
        wrong = number[:index] + str((int(number[index]) + 1) % 10) + number[index + 1 :]
        assert not is_card_number(wrong)


def test_only_the_types_asked_for_are_looked_for() -> None:
    text = f"{made.email(RNG)} {made.cn_mobile(RNG)}"
    assert {hit.category for hit in find_personal_data(text, frozenset({"EMAIL"}))} == {"EMAIL"}


HOSTILE = ["1", "@", "a.", "-", "1-", "1 ", "11 ", "4-", "4111 ", "a@", "a@a.", "a.a@a.a", "(1"]
HOSTILE += ["+", "+86 ", "1 3 8 ", "138 1234 5678 ", "GB82 ", "2001:", "１", "1\u200b", "1️⃣", "12."]
HOSTILE += [
    "我杀",
    "fuck ",
    "you are a ",
    "i will ",
    '"i will kill you ',
    "电话1",
    "0755-",
    "㎏",
    " ",
]
HOSTILE += ["110101199003078531 ", "1" * 40 + " ", "@a-a-", "f*", "call 1 ", "order 4"]


HOSTILE += ["路1号", "1·", "一三八", "password: a1", "212-555-0143 ", "1.1.1.1 ", "12 Main St "]
HOSTILE += ["f u c k ", "fuuuuck", "sh1t ", "傻 逼 ", "аb ", "電話", "one ", "lO", "bob at x "]
HOSTILE += ["大道东一号", "@a点", "a艾特a点", "a艾特a点cn ", "a @ b . c ", "a n n @ x . i o "]
HOSTILE += ["京 A 1 2 3 4 5 ", "0 0 4 4 "]


@pytest.mark.parametrize("piece", HOSTILE)
def test_hostile_text_takes_linear_time(piece: str) -> None:
    """Eight times the text, about eight times the time; what is quadratic takes 64 times."""
    short, long = ((piece * 65_536)[:chars] for chars in (8_192, 65_536))
    ratio = _seconds(long, 2) / max(_seconds(short, 5), 1e-4)
    assert ratio < 24  # 8 and what caches, memory and other work on the machine add


@pytest.mark.slow
@pytest.mark.parametrize("piece", ["138 1234 5678 ", "f u c k ", "大道东一号", "a艾特a点cn "])
def test_a_million_characters_take_linear_time(piece: str) -> None:
    short, long = ((piece * 1_048_576)[:chars] for chars in (131_072, 1_048_576))
    assert _seconds(long, 3) / _seconds(short, 3) < 24


def _seconds(text: str, rounds: int) -> float:
    """Processor time of one check of this thread, best of several."""
    times = []
    for _ in range(rounds):
        begun = time.thread_time()
        GUARD.check_input(text)
        times.append(time.thread_time() - begun)
    return min(times)


def test_an_address_begins_at_the_first_region_or_level_of_the_words_before_it() -> None:
    for text, found in (
        ("我家在海南京东大道东一号", ["海南京东大道东一号"]),
        ("海南京东大道东一号", ["海南京东大道东一号"]),
        ("大道东一号" * 3, []),
        ("北京市大道东一号大道东一号", ["北京市大道东一号"]),
        ("某某某某某某某某某某朝阳区幸福路三号", ["某某朝阳区幸福路三号"]),
    ):
        hits = GUARD.check_input(text).verdict.findings
        assert [text[hit.start : hit.end] for hit in hits] == found


def test_every_type_of_the_policy_has_a_recognizer() -> None:
    personal = type(GUARD.policy.input.personal_data).model_fields
    assert set(RECOGNIZERS) == set(personal) - MODEL_TYPES
