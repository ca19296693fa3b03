"""Accounts of messengers: found behind the words that name or hide them, left alone elsewhere."""

from __future__ import annotations

import pytest

from instructrec_deploy.safety.guard import Guard

GUARD = Guard()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("加我薇信kyx_06577聊", "kyx_06577"),
        ("V信：uovoe82012，备注来意", "uovoe82012"),
        ("ＶＸ kyx-06577", "kyx-06577"),
        ("➕V mzk6720397😀", "mzk6720397"),
        ("plus V: Mzk6720397", "Mzk6720397"),
        ("加微xvfk3570领资料", "xvfk3570"),
        ("微❤️号是zhangsan_w", "zhangsan_w"),
        ("微信号：zhangsan", "zhangsan"),
        ("Add my WeChat john_88 please", "john_88"),
        ("扣扣6158136326", "6158136326"),
        ("QQ:12345", "12345"),
        ("企鹅号五6一一四6三二二", "五6一一四6三二二"),
        ("my QQ is 6 3 9 6 6 2 0 6 6", "6 3 9 6 6 2 0 6 6"),
        ("Q\u200bQ\u200b：９９９１４６６０", "９９９１４６６０"),
    ],
)
def test_an_account_that_is_named_is_found(text: str, value: str) -> None:
    found = [(f.category, text[f.start : f.end]) for f in GUARD.check_input(text).verdict.findings]
    assert found == [("CHAT_ID", value)]


def test_a_phone_number_as_an_account_stays_a_phone_number() -> None:
    assert GUARD.check_input("薇信同号13812345678").text == "薇信同号[PHONE]"
    assert GUARD.check_input("qq12345678@qq.example.com").text == "[EMAIL]"


@pytest.mark.parametrize(
    "text",
    [
        "QQ音乐会员158元一年",
        "微信支付88888元失败",
        "微信8.0.42版本闪退",
        "QQ2024年度报告",
        "QQ 123456人在线",
        "wechat is great, wechat: download the app",
        "wx.request is not a function",
        "加V认证要300元",
        "plus V8 engines",
        "加微量元素1234毫克",
        "卫星12345公里外",
        "企鹅123456只",
        "微信号 login 😀",
    ],
)
def test_what_only_speaks_of_a_messenger_is_left_alone(text: str) -> None:
    assert GUARD.check_input(text).verdict.findings == ()


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("ann [dot] lee [at] mail [dot] example [dot] com!", "[EMAIL]!"),
        ("写到ann点47艾特mail点example点cn吧", "写到[EMAIL]吧"),
        ("Write to ann . 57 @ mail . example . cn", "Write to [EMAIL]"),
        ("It is late. bob [at] mail [dot] example [dot] com", "It is late. [EMAIL]"),
        ("It is late . bob [at] mail [dot] example [dot] com", "It is late . [EMAIL]"),
    ],
)
def test_dots_spelled_before_the_at_belong_to_the_address(text: str, masked: str) -> None:
    assert GUARD.check_input(text).text == masked


def test_the_word_before_a_number_is_no_digit_of_it() -> None:
    assert GUARD.check_input("My cell is 212-841-0102").text == "My cell is [PHONE]"
