"""Phone numbers: Chinese, US, UK and international forms, without hotlines and order numbers."""

from __future__ import annotations

import re

from instructrec_deploy.safety import reach
from instructrec_deploy.safety.match import Match, matches, scan
from instructrec_deploy.safety.outlines import Gate, Outline
from instructrec_deploy.safety.pending import Shape
from instructrec_deploy.safety.recognizers.nearby import has_any

_S = r"(?: ?[.\-] ?| {1,2})"  # one separator
_L = r"(?<![0-9])"
_L1 = r"(?<![0-9].)"  # the same behind the first character: a search skips to such characters
_R = r"(?![0-9])"
_ABROAD_00 = rf"0{_L1}0(?: (?<![:.]00 ))?"  # no end of a time of day
_CN_AREA = r"(?:10|2[0-9]|(?![48]00)[3-9][0-9]{2})"  # 400 and 800: hotlines
_CN_LOCAL = rf"[2-9][0-9]{{2,3}}{_S}?[0-9]{{4}}"
_EXTENSION = r"(?:(?: ?(?:转|ext\.?|x) ?|-)[0-9]{1,5}(?![0-9]))?"

# A mobile in its usual groups, or with each digit apart. 144 and 154 are not given out.
_CN_MOBILE = re.compile(
    rf"(?:1{_L1}|(?:\({_L1}(?:\+ ?|00 ?|(?<!\+.))|\+{_L1} ?|{_ABROAD_00})86\)?{_S}?1"
    rf"|8(?<![0-9+].)6\)?{_S}?1)"
    rf"(?:[3-9][0-9](?:{_S}?[0-9]{{4}}){{2}}|[3-9][0-9]{_S}[0-9]{{3}}{_S}[0-9]{{5}}"
    rf"|(?<![0-9][ .\-]1)[ .\-][3-9](?:[ .\-][0-9]){{9}}){_R}"
)
_CN_ABROAD = rf"86\)?{_S}?\(?0?{_CN_AREA}\)?"
_CN_LANDLINE = re.compile(
    rf"(?:\({_L1}(?:(?:\+ ?|00){_CN_ABROAD}|0{_CN_AREA}\)?)|\+{_L1} ?{_CN_ABROAD}"
    rf"|{_ABROAD_00}{_CN_ABROAD}|0{_L1}{_CN_AREA}\)?){_S}?{_CN_LOCAL}{_EXTENSION}{_R}",
    re.IGNORECASE,
)
_US = re.compile(
    rf"{_L}(?=[2-9(]|(?:\+ ?|00)?1[ .\-]{{0,3}}[2-9(])(?P<one>(?:\+ ?|00)?1{_S}?)?(?P<open>\()?"
    rf"(?P<area>[2-9][0-9]{{2}})(?(open)\){_S}?|{_S}?)"
    rf"(?P<exchange>[0-9]{{3}}){_S}?[0-9]{{4}}{_R}"
)
_UK_ABROAD = rf"44\)?{_S}?(?:\(0\){_S}?|\()?"
_UK = re.compile(
    rf"(?:\({_L1}(?:(?:\+ ?|00){_UK_ABROAD}|0)|(?:\+{_L1} ?|{_ABROAD_00}){_UK_ABROAD}|0{_L1})"
    rf"(?:7[0-9]{{3}}\)?{_S}?[0-9]{{3}}{_S}?[0-9]{{3}}"
    rf"|2[03489][0-9]?\)?{_S}?[0-9]{{3,4}}{_S}?[0-9]{{4}}"
    rf"|1[0-9]1\)?{_S}?[0-9]{{3}}{_S}?[0-9]{{4}}|11[0-9]\)?{_S}?[0-9]{{3}}{_S}?[0-9]{{4}}"
    rf"|1[0-9]{{3}}\)?{_S}?[0-9]{{5,6}}|1[0-9]{{3}}\)?{_S}?[0-9]{{3}}{_S}?[0-9]{{3}}){_R}"
)
_COUNTRY = (
    r"(?:7|2(?:[07]|[1-689][0-9])|3(?:[0-469]|[578][0-9])|4(?:[0135-9]|2[0-9])|5(?:[1-8]|[09][0-9])"
    r"|6(?:[0-6]|[7-9][0-9])|8(?:[124]|[0578][0-9])|9(?:[0-58]|[679][0-9]))"
)
# 8 to 13 digits behind the country code; the last two stay together, so that a lone number that
# follows ("+49 30 901820 2 people") is not swallowed.
_INTERNATIONAL = re.compile(
    rf"(?:\+{_L1} ?|{_ABROAD_00}){_COUNTRY}(?:[ .\-()]{{0,2}}[0-9]){{5,11}}[ .\-]?[0-9]{{2}}{_R}"
)

# Any number of 7 to 13 digits that the text itself calls a phone number.
_NAMED = re.compile(
    rf"{_L}(?<![0-9][ .\-()])(?!(?:19|20)[0-9]{{2}}[ .\-][0-9])[+(]{{0,2}}[0-9]"
    rf"(?:[ .\-()]{{0,2}}[0-9]){{6,12}}{_R}"
)
_NAMED_BEFORE = re.compile(
    r"(?:(?<![A-Za-z])(?:telephone|tel|phone|mobile|mob|cell|fax|whatsapp|sms|call|dial|ring"
    r"|(?:text|messages?|reach)(?= ))"
    r"|电话|手机(?!用户)|座机|固话|致电|拨打|传真|打给我?|打我)"
    r"(?: (?:me|us|him|her|no|nr|number|号码?))?(?: ?(?:at|on|to|is|是|为|号码?))?[ .:#]{0,3}\Z",
    re.IGNORECASE,
)
_NAMED_AFTER = re.compile(r" ?\(?(?:office|fax|mobile|cell|phone|tel|home|work)(?![A-Za-z])")
# Words right behind a bare number that make it one.
_CALLED = re.compile(
    r"[^0-9A-Za-z]{0,4}(?:call|text|whatsapp|ring|phone|sms)(?![A-Za-z])", re.IGNORECASE
)
# Hotlines belong to everybody: Chinese 400 and 800, North American and British toll-free numbers.
_HOTLINE = re.compile(
    r"(?:(?:\+|00)?(?:86|1))?(?:[48]00|888|877|866|855|844|833|822)[0-9]{7}"
    r"|(?:(?:\+|00)440?|0)(?:80|3)[0-9]{8}"
)

# Words right before a number that make it a phone number, or some other number. The nearest wins.
_PHONE_WORDS = re.compile(
    r"(?:(?<![A-Za-z])(?:tele(?:phone)?|tel|phone|mobile|mob|cell|call(?: me| us)?(?: at| on)?|sms"
    r"|whatsapp|wechat|fax|dial|ring|text(?: me)?|contact|reach (?:me|us) (?:at|on)"
    r"|(?:my|his|her)(?: (?:new|old|real|own|direct|private|personal|current))? (?:digits|number)"
    r"(?![a-z]))"
    r"|电话|手机(?!用户)|座机|固话|热线|拨打|致电|打给|打我|联系|传真|微信|短信|来电|号码是)[^0-9]{0,14}\Z",
    re.IGNORECASE,
)
_OTHER_WORDS = re.compile(
    r"(?:(?<![A-Za-z])(?:order|invoice|tracking|parcel|serial|ticket|ref(?:erence)?|sku|isbn|ean|upc|gtin"
    r"|barcode|version"
    r"|batch|transaction|(?:case|item|product|model|payment|account) (?:no|number|id))"
    r"|订单|单号|编号|流水|序列|快递|发票|合同|商品|条形?码|货号|工单|批次|交易|版本|型号)"
    r"(?: ?(?:no|number|num|nr|id|code|号码?|编号|号))?[ .:#=\-]{0,4}(?:is|was|是|为)?[ :]{0,2}\Z",
    re.IGNORECASE,
)
# Part of a longer code: a letter or a short group joined on by a mark ("ORD-138...", "0.138...").
_JOINED = re.compile(r"(?:[A-Za-z]|(?<![0-9])[0-9]{1,6})[-_/#.]\Z|[A-Za-z]\Z")
_CURRENCIES = "$¥€£"  # right before a price, or a space before it
_PRICE_AFTER = re.compile(r"\.[0-9]| ?(?:元|块|万|亿|美元|%|円|USD|RMB)|(?!x ?[0-9]|ext)[A-Za-z]")
_MARKS = {ord(mark): None for mark in " .-()"}  # all that a number has beside digits and a plus
_DIGITS = frozenset("0123456789")
_UP_TO_DIGIT = re.compile(r".*[0-9]", re.DOTALL)
_A_WORD = re.compile(r"[A-Za-z\u4e00-\u9fff]{2}")

_NOT_PERSONAL_AREAS = frozenset(
    ("800", "822", "833", "844", "855", "866", "877", "888", "900", "400", "700", "976")
)
_UK_MOBILE = re.compile(r"(?:(?:\+|00)44(?:0)?|0)7[1-9][0-9]{8}")
_TOLL_FREE = re.compile(r"(?:\+|00)[0-9]{2,3}800")


def find_phones(text: str, lower: str, outline: Outline | None = None) -> list[Match]:
    """Phone numbers of a folded text; the forms may overlap each other."""
    outline = outline or Outline(text)
    hits: list[Match] = []
    for rule, pattern, accept in _FORMS:
        stems, gate = _STEMS[rule]
        if not has_any(stems, lower) or not gate.is_open(outline):
            continue
        spans = []
        for found in scan(pattern, text, accept):
            start, end = found.span()
            if text[start] == "(" and ")" not in found[0]:  # closes behind the number
                start += 1
            spans.append((start, end))
        hits += matches("PHONE", rule, spans)
    return hits


def is_named_otherwise(text: str, start: int) -> bool:
    """Whether the words before a number say that it is an order number or the like."""
    before = _words_before(text, start)
    if not before:
        return False
    return bool(_OTHER_WORDS.search(before)) and not _PHONE_WORDS.search(before)


def _words_before(text: str, start: int) -> str:
    """What stands between the number before and this one; "" where that is no word."""
    if start < 2 or text[start - 1] in _DIGITS or text[start - 2] in _DIGITS:
        return ""
    before = text[max(0, start - reach.PHONE_WORDS) : start]
    digits = _UP_TO_DIGIT.match(before)
    words = before[digits.end() :] if digits else before
    return words if _A_WORD.search(words) else ""


def _has_phone_word(found: re.Match[str]) -> bool:
    before = _words_before(found.string, found.start())
    return bool(before) and _PHONE_WORDS.search(before) is not None


def _stands_free(found: re.Match[str]) -> bool:
    """No part of a code, a price or a decimal, and not named as something else."""
    text, (start, end) = found.string, found.span()
    words = _words_before(text, start)
    if words:
        if _PHONE_WORDS.search(words):
            return True
        if _OTHER_WORDS.search(words):
            return False
    after = text[end : end + 2]
    is_apart = after[:1] == " " and after[1:].isdecimal()
    if after and not is_apart and _PRICE_AFTER.match(text, end):
        return False
    if not start:
        return True
    last = text[start - 1]
    if last in "-_/#." or last.isalpha():
        return not _JOINED.search(text[max(0, start - 8) : start])
    if last == " " and start > 1:
        last = text[start - 2]
    return last not in _CURRENCIES


def _digits(found: re.Match[str]) -> str:
    return found[0].translate(_MARKS)


def _is_grouped(found: re.Match[str]) -> bool:
    """Written with separators, brackets or a plus: the look of a phone number."""
    return not found[0].isdecimal()


def _accept_cn_landline(found: re.Match[str]) -> bool:
    return (_is_grouped(found) or _has_phone_word(found)) and _stands_free(found)


def _accept_us(found: re.Match[str]) -> bool:
    one, opening, area, exchange = found.group("one", "open", "area", "exchange")
    if area in _NOT_PERSONAL_AREAS or area.endswith("11") or area[1] == "9":
        return False
    is_long = one is not None and one[0] in "+0"
    if not is_long and (exchange[0] in "01" or exchange.endswith("11")):
        return False
    is_marked = found.end() - found.start("area") >= len("212-555-0143")
    is_shaped = is_marked or bool(opening) or "+" in (one or "")
    is_phone = is_shaped or _has_phone_word(found) or _CALLED.match(found.string, found.end())
    return bool(is_phone) and _stands_free(found)


def _accept_uk(found: re.Match[str]) -> bool:
    digits = _digits(found)
    is_shaped = _is_grouped(found) or bool(_UK_MOBILE.fullmatch(digits))
    return (is_shaped or _has_phone_word(found)) and _stands_free(found)


def _accept_international(found: re.Match[str]) -> bool:
    if _TOLL_FREE.match(_digits(found)):
        return False
    return (_is_grouped(found) or _has_phone_word(found)) and _stands_free(found)


def _accept_named(found: re.Match[str]) -> bool:
    text = found.string
    before = _words_before(text, found.start())
    is_named = before and _NAMED_BEFORE.search(before)
    if not is_named and not (_is_grouped(found) and _NAMED_AFTER.match(text, found.end())):
        return False
    return not _HOTLINE.fullmatch(_digits(found))


_FORMS = (
    ("cn_mobile", _CN_MOBILE, _stands_free),
    ("cn_landline", _CN_LANDLINE, _accept_cn_landline),
    ("us", _US, _accept_us),
    ("uk", _UK, _accept_uk),
    ("international", _INTERNATIONAL, _accept_international),
    ("named", _NAMED, _accept_named),
)
PHONE_SHAPES = tuple(Shape(pattern, reach.NAME_AFTER) for _, pattern, _ in _FORMS)
# What a text must hold for a form to be looked for: characters or words, and an outline.
_STEMS: dict[str, tuple[tuple[str, ...], Gate]] = {
    "cn_mobile": (
        ("1",),
        Gate(
            kinds=(b"0" * 11,),
            spaced=(
                *(b"000 0000 0000", b"0000000 0000", b"000 00000000", b"000 000 00000"),
                b"0 " * 10 + b"0",
            ),
        ),
    ),
    "cn_landline": (
        ("0", "86"),
        Gate(spaced=(b"00 000 0000", b"00 0000 0000", b"00 0000000", b"00000 0000", b"000000000")),
    ),
    "us": (
        tuple("23456789"),
        Gate(spaced=(b"000 000 0000", b"000 0000000", b"000000 0000", b"0000000000")),
    ),
    "uk": (("0", "44"), Gate(joined=(b"0" * 10,))),
    "international": (("+", "00"), Gate(joined=(b"0" * 8,))),
    "named": (
        (
            *("tel", "phone", "mob", "cell", "fax", "whatsapp", "sms", "call", "dial", "ring"),
            *("text", "messag", "reach", "office", "home", "work"),
            *("电话", "手机", "座机", "固话", "致电", "拨打", "传真", "打给", "打我"),
        ),
        Gate(joined=(b"0" * 7,)),
    ),
}
