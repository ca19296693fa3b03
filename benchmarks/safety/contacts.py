"""Contacts in disguise: accounts of messengers under other names, numbers and addresses mixed up.

Two lists that share no carrier and no disguise: `TUNE` for writing the rules by, `HELD` for the
figure. Values are made up by a seed.
"""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.safety.cases import Case
from tests.unit.safety import made_up as made

Disguise = Callable[[str, random.Random], str]
_HAN = "零一二三四五六七八九"
_BANK = "零壹贰叁肆伍陆柒捌玖"
_CIRCLED = "⓪①②③④⑤⑥⑦⑧⑨"


@dataclass(frozen=True, slots=True)
class Contacts:
    """One list: carriers by kind of value, disguises of numbers and addresses, hard negatives."""

    wechat: tuple[str, ...]
    qq: tuple[str, ...]
    phone: tuple[str, ...]
    mail: tuple[str, ...]
    numbers: tuple[Disguise, ...]
    mails: tuple[Disguise, ...]
    hard: tuple[str, ...]


def _mixed(digits: str, share: float) -> Disguise:
    """Some of the digits, by chance, as the characters of another list."""

    def disguise(value: str, rng: random.Random) -> str:
        return "".join(digits[int(c)] if rng.random() < share else c for c in value)

    return disguise


def _keycaps(value: str, rng: random.Random) -> str:
    return "".join(f"{c}\ufe0f\u20e3" if rng.random() < 0.5 else c for c in value)


def _grouped(mark: str, digits: str) -> Disguise:
    """In groups with a mark between them, some of the digits as those of another list."""

    def disguise(value: str, rng: random.Random) -> str:
        groups = (value[:3], value[3:7], value[7:])
        return mark.join(_mixed(digits, 0.4)(group, rng) for group in groups)

    return disguise


def _put(at: str, dot: str) -> Disguise:
    return lambda value, rng: value.replace("@", at).replace(".", dot)


TUNE = Contacts(
    wechat=(
        "加我薇信{}",
        "V信：{}，备注来意",
        "vx {} 聊",
        "加微{}领资料",
        "➕V {}",
        "私聊加v：{}",
        "微信号：{}",
        "wechat: {}",
    ),
    qq=("扣扣{}", "Q号{}，随时在", "QQ:{}", "加Q {} 进群", "my QQ is {}"),
    phone=("薇信同号{}", "联系{}小王", "打{}问价", "call {} today"),
    mail=("写到{}吧", "Write to {} about it", "mail me: {}"),
    numbers=(
        _mixed(_HAN, 0.5),
        _mixed(_CIRCLED, 0.5),
        _keycaps,
        _grouped("-", _HAN),
        lambda value, rng: made.full_width(value),
        lambda value, rng: "".join(f"{c} " for c in value).strip(),
    ),
    mails=(
        _put(" [at] ", " [dot] "),
        _put(" at ", " dot "),
        _put("艾特", "点"),
        _put(" @ ", " . "),
        lambda value, rng: made.full_width(value),
    ),
    hard=(
        "QQ音乐会员{d3}元一年",
        "微信支付{d5}元失败",
        "微信版本8.0.{d2}闪退",
        "QQ{d4}年度报告",
        "wechat pay {d6} times faster",
        "加V认证要{d3}元",
        "vx{d3}型号的键盘",
        "企鹅{d6}只",
        "微信里有{d7}个好友",
        "GTX {d4} 显卡",
        "wx.request is not a function in line {d4}",
        "QQ邮箱收不到验证码{d6}",
    ),
)
HELD = Contacts(
    wechat=(
        "威信号是{}",
        "有需要加VX:{}",
        "plus V {} 详谈",
        "家薇{}",
        "我的WX号{}",
        "徽信 {} 拉你进群",
        "＋微❤：{}",
        "Add my WeChat {} please",
        "weixin: {}",
        "卫星号{}",
    ),
    qq=("扣号是{}", "球球：{}", "蔻蔻 {}", "私我q{}", "企鹅号码{}", "add me on QQ {}"),
    phone=("要货的联{}", "威信和手机都是{}", "📱{}", "ring me on {} please"),
    mail=("简历投{}", "reach me at {} any time", "邮箱是 {} 。"),
    numbers=(
        _mixed(_BANK, 0.5),
        _mixed("〇一二三四五六七八九", 0.8),
        _grouped(" ", _BANK),
        _grouped("·", _CIRCLED),
        lambda value, rng: value.replace("1", "幺").replace("2", "两"),
        lambda value, rng: "🔸".join(value),
        lambda value, rng: made.full_width(_mixed(_HAN, 0.3)(value, rng)),
        lambda value, rng: value.translate(str.maketrans("01", "Ol")),
    ),
    mails=(
        _put("(at)", "(dot)"),
        _put(" AT ", " DOT "),
        _put("{at}", "{dot}"),
        _put("＠", "。"),
        _put(" 艾特 ", " 点 "),
        _put("@", " (dot) "),
        _put("<at>", "."),
        _put("_at_", "_dot_"),
    ),
    hard=(
        "微信红包{d3}.{d2}元已领取",
        "QQ飞车{d4}赛季开始",
        "小程序wx{d2}接口报错{d5}",
        "球球大作战第{d3}关",
        "加微量元素{d4}毫克",
        "VX-{d4}打印机驱动",
        "卫星{d5}公里外的轨道",
        "企鹅{d4}年南极科考",
        "QQ在线人数{d7}人",
        "微信步数{d5}步",
        "the satellite weighs {d6} kg",
        "our WeChat group has {d4} members and {d6} messages",
        "line {d4}: wx is undefined",
        "plus V{d1} engines cost ${d6}",
        "微信小程序上线{d8}次更新",
        "QQ号码是{d1}位数的",
    ),
)


def wechat_id(rng: random.Random) -> str:
    """A WeChat ID: a letter, then letters, digits, a mark."""
    head = "".join(rng.choices(string.ascii_lowercase, k=rng.randint(3, 6)))
    return f"{head}{rng.choice(('', '_', '-'))}{made.digits(rng, rng.randint(3, 8))}"


def qq_number(rng: random.Random) -> str:
    """A QQ number."""
    return str(rng.randint(1, 9)) + made.digits(rng, rng.randint(6, 9))


def contact_cases(contacts: Contacts, seed: int, n_rounds: int) -> dict[str, list[Case]]:
    """Cases by kind: wechat, qq (plain and disguised), phone, mail."""
    rng = random.Random(seed)
    cases: dict[str, list[Case]] = {"wechat": [], "qq": [], "phone": [], "mail": []}
    for _ in range(n_rounds):
        for carrier in contacts.wechat:
            cases["wechat"].append(_plant("CHAT_ID", carrier, wechat_id(rng)))
        for carrier in contacts.qq:
            number = qq_number(rng)
            disguise = rng.choice(contacts.numbers)
            cases["qq"].append(_plant("CHAT_ID", carrier, number))
            cases["qq"].append(_plant("CHAT_ID", carrier, disguise(number, rng)))
        for carrier in contacts.phone:
            for disguise in contacts.numbers:
                value = disguise(made.cn_mobile(rng), rng)
                cases["phone"].append(_plant("PHONE", carrier, value))
        for carrier in contacts.mail:
            for disguise in contacts.mails:
                cases["mail"].append(_plant("EMAIL", carrier, disguise(made.email(rng), rng)))
    return cases


def contact_negatives(contacts: Contacts, seed: int, n_rounds: int) -> list[Case]:
    """Texts with the same words that hold no contact."""
    rng = random.Random(seed)
    sizes = range(1, 14)
    return [
        Case(carrier.format(**{f"d{n}": _number(rng, n) for n in sizes}), "zh")
        for _ in range(n_rounds)
        for carrier in contacts.hard
    ]


def _number(rng: random.Random, n: int) -> str:
    return str(rng.randint(1, 9)) + made.digits(rng, n - 1)


def _plant(kind: str, carrier: str, value: str) -> Case:
    start = carrier.index("{}")
    text = carrier.replace("{}", value)
    return Case(text, "zh", ((kind, start, start + len(value)),))
