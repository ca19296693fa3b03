"""Cases of structured personal data in English and Chinese: found, left alone, obfuscated.

Values are made up by a seed and pass their checksums; no carrier holds anything of a real person.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from tests.unit.safety import made_up as made


@dataclass(frozen=True, slots=True)
class Case:
    """A text and its values as (type, start, end); hard negatives have none."""

    text: str
    lang: str
    values: tuple[tuple[str, int, int], ...] = ()


Maker = Callable[[random.Random], str]


def _us_phone(rng: random.Random) -> str:
    return f"{rng.choice((212, 415, 617))}-{rng.randint(200, 899)}-{rng.randint(0, 9999):04}"


def _uk_phone(rng: random.Random) -> str:
    return f"07{rng.randint(400, 999)} {rng.randint(100000, 999999)}"


def _landline(rng: random.Random) -> str:
    return f"0{rng.choice((10, 21, 755, 571))}-{rng.randint(22000000, 89999999)}"


def _union_card(rng: random.Random) -> str:
    return made.card(rng, rng.choice(("622848", "621700", "622202")), 19)


def _key(rng: random.Random) -> str:
    return made.key(rng, "ghp_", 36)


EN: tuple[tuple[str, Maker, tuple[str, ...]], ...] = (
    ("PHONE", _us_phone, ("You can reach me at {} after five.", "My cell is {}, voicemail works.")),
    ("PHONE", _uk_phone, ("Ring {} when the van arrives.", "Her mobile: {}")),
    ("EMAIL", made.email, ("Send the invoice to {} please.", "cc {}; she handles refunds")),
    ("CREDIT_CARD", made.card, ("I paid with {} yesterday.", "The card {} was charged twice!")),
    ("IBAN", made.iban, ("Refund to {} within a week.", "Our account: {}, thanks")),
    ("IP", made.ipv4, ("Login attempt from {} at noon.", "block {} in the firewall")),
    ("US_SSN", made.us_ssn, ("My social security number is {}.", "SSN {} on the W-2 is wrong")),
    ("UK_NINO", made.uk_nino, ("National Insurance number {} goes on the form.", "NINO: {}")),
    ("UK_NHS", made.uk_nhs, ("NHS number {} is on the letter.", "The patient number is {}.")),
    ("ES_DNI", made.es_dni, ("His DNI {} has expired.", "The tenant signed with DNI {}.")),
    ("FR_NIR", made.fr_nir, ("The NIR {} was rejected.", "social security (France): {}")),
    ("DE_TAX_ID", made.de_tax_id, ("My Steuer-ID is {}.", "tax id {} for the German payroll")),
    ("IT_FISCAL", made.it_fiscal, ("Codice fiscale {} on the lease.", "Fiscal code: {}")),
    ("PL_PESEL", made.pl_pesel, ("PESEL {} is needed for the visit.", "Her PESEL: {}")),
    ("SECRET", _key, ("I committed {} by accident.", "export GITHUB_TOKEN={}")),
    ("PASSPORT", made.cn_passport, ("My passport {} was stolen.", "Passport no. {} expires soon")),
)
ZH: tuple[tuple[str, Maker, tuple[str, ...]], ...] = (
    ("PHONE", made.cn_mobile, ("师傅到了打{}就行", "我换号了，新号{}，旧的停用", "收件人手机：{}")),
    ("PHONE", _landline, ("店里座机{}，上午有人", "公司电话是{}。")),
    ("EMAIL", made.email, ("发票请发到{}，谢谢", "简历投{}即可")),
    ("CN_ID", made.cn_id, ("身份证{}，帮我查下进度", "住客证件号码：{}", "{}这个号实名不了")),
    ("CREDIT_CARD", _union_card, ("退款打到{}这张卡", "工资卡号{}没到账")),
    ("CREDIT_CARD", made.card, ("信用卡{}被盗刷了！", "用{}支付失败")),
    ("CN_USCC", made.cn_uscc, ("开票税号{}", "统一社会信用代码：{}，请核对")),
    ("LICENSE_PLATE", made.cn_plate, ("车牌{}停在门口挡路了", "{}的车主请挪车")),
    ("PASSPORT", made.cn_passport, ("护照{}过期了怎么续", "护照号码是{}。")),
    ("IP", made.ipv4, ("来自{}的异常登录", "服务器{}连不上")),
    ("IBAN", made.iban, ("境外汇款账号{}", "请汇到{}，备注订单")),
    ("SECRET", _key, ("不小心把{}提交上去了", "令牌是{}，别外传")),
)
HARD = (
    ("en", "Order {d10} shipped on 2024-03-{d2}, tracking number {d12}."),
    ("en", "Invoice no. {d11} covers items {d4}, {d4} and {d4}."),
    ("en", "The build took {d4}.{d6} seconds, commit 0x{d8}."),
    ("en", "Release 12.{d1}.3.4 fixes bug {d6}; ping 192.168.1.{d2} works again."),
    ("en", "Call our hotline 1-800-555-0{d3} or 911 in an emergency."),
    ("en", "Population grew from 1,{d3},{d3} to 2,{d3},{d3} people."),
    ("en", "ISBN 978-0-{d3}-{d5}-1, pages {d3}-{d3}."),
    ("en", "Meeting 10:30-11:45, room {d4}, budget ${d7}."),
    ("en", "Timestamps 17{d8} and 17{d8}{d3} are in UTC."),
    ("en", "The account is masked already: **** **** **** {d4}."),
    ("en", "Chapter 3.2.1.{d1} explains 127.0.0.1 and 10.0.{d2}.7."),
    ("en", "Serial number {d13}, model {d3}-{d4}."),
    ("zh", "订单号{d12}什么时候发货"),
    ("zh", "快递单号：{d13}，三天没动了"),
    ("zh", "会议室{d3}，时间2024年5月{d1}日 14:30"),
    ("zh", "本月销量{d7}件，同比增长{d2}.{d1}%"),
    ("zh", "拨打400-8{d2}-{d4}或12345投诉"),
    ("zh", "版本12.{d1}.30.4已发布，修复{d4}号问题"),
    ("zh", "人民币{d3},{d3},{d3}元整"),
    ("zh", "商品编号{d11}缺货"),
    ("zh", "尾号{d4}的卡消费{d3}.{d2}元"),
    ("zh", "内网地址192.168.{d2}.1，本机127.0.0.1"),
    ("zh", "手机号138****{d4}已绑定"),
    ("zh", "合同编号HT-2024-{d6}，第{d2}页共{d2}页"),
)
_HAN = str.maketrans("0123456789", "零一二三四五六七八九")
_BANK = str.maketrans("0123456789", "零壹贰叁肆伍陆柒捌玖")
_CYRILLIC = str.maketrans("aeopcx", "аеорсх")
_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
NUMBERS: dict[str, Callable[[str], str]] = {
    "full width": made.full_width,
    "zero width": "\u200b".join,
    "bidi": lambda value: f"\u202e{value}\u202c",
    "keycaps": lambda value: "".join(f"{char}\ufe0f\u20e3" for char in value),
    "circled": lambda value: value.translate(str.maketrans("123456789", "①②③④⑤⑥⑦⑧⑨")),
    "Han digits": lambda value: value.translate(_HAN),
    "financial": lambda value: value.translate(_BANK),
    "dots between": "·".join,
    "spaces between": " ".join,
    "slashes between": "/".join,
    "commas between": "，".join,
    "letters": lambda value: value.replace("0", "O").replace("1", "l"),
    "half Han": lambda value: value[:5] + value[5:].translate(_HAN),
    "words": lambda value: " ".join(_NAMES[int(char)] for char in value),
}
ADDRESSES: dict[str, Callable[[str], str]] = {
    "full width": made.full_width,
    "zero width": "\u200b".join,
    "[at]": lambda value: value.replace("@", " [at] ").replace(".", " [dot] "),
    "(at)": lambda value: value.replace("@", "(at)"),
    "at dot": lambda value: value.replace("@", " at ").replace(".", " dot "),
    "艾特": lambda value: value.replace("@", "艾特").replace(".", "点"),
    "spaces": lambda value: value.replace("@", " @ ").replace(".", " . "),
    "Cyrillic": lambda value: value.translate(_CYRILLIC),
}


def planted(seed: int, n_rounds: int) -> list[Case]:
    """Every carrier with a fresh value, round by round."""
    rng = random.Random(seed)
    return [
        _plant(rng, lang, kind, carrier, make(rng))
        for _ in range(n_rounds)
        for lang, rows in (("en", EN), ("zh", ZH))
        for kind, make, carriers in rows
        for carrier in carriers
    ]


def hard_negatives(seed: int, n_rounds: int) -> list[Case]:
    """Numbers and names that are no personal data."""
    rng = random.Random(seed)
    sizes = {f"d{n}": n for n in range(1, 14)}
    return [
        Case(carrier.format_map(_Digits(rng, sizes)), lang)
        for _ in range(n_rounds)
        for lang, carrier in HARD
    ]


def obfuscated(seed: int, n_rounds: int) -> dict[str, list[Case]]:
    """Values in disguise, by the name of the disguise."""
    rng = random.Random(seed)
    makers = (("PHONE", made.cn_mobile), ("CN_ID", made.cn_id), ("CREDIT_CARD", made.card))
    carriers = {
        "PHONE": "手机号是{}，有事打",
        "CN_ID": "身份证号{}，请登记",
        "CREDIT_CARD": "卡号{}扣款失败",
    }
    cases: dict[str, list[Case]] = {}
    for _ in range(n_rounds):
        for name, disguise in NUMBERS.items():
            for kind, make in makers:
                value = make(rng)
                if value.isdecimal():
                    case = _plant(rng, "zh", kind, carriers[kind], disguise(value))
                    cases.setdefault(name, []).append(case)
        for name, disguise in ADDRESSES.items():
            case = _plant(rng, "en", "EMAIL", "Write to {} about it", disguise(made.email(rng)))
            cases.setdefault(f"mail: {name}", []).append(case)
    return cases


class _Digits(dict[str, str]):
    def __init__(self, rng: random.Random, sizes: dict[str, int]) -> None:
        super().__init__()
        self._rng, self._sizes = rng, sizes

    def __missing__(self, key: str) -> str:
        return str(self._rng.randint(1, 9)) + made.digits(self._rng, self._sizes[key] - 1)


def _plant(rng: random.Random, lang: str, kind: str, carrier: str, value: str) -> Case:
    start = carrier.index("{}")
    return Case(carrier.format(value), lang, ((kind, start, start + len(value)),))
