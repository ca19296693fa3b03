"""Chinese identifiers: resident ID, social credit code; licence plates and passports."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import date
from operator import mul

from instructrec_deploy.safety import reach
from instructrec_deploy.safety.match import Match, matches, scan, scan_values
from instructrec_deploy.safety.pending import Shape
from instructrec_deploy.safety.recognizers.nearby import LEFT, RIGHT, bare, has_any, is_near, words

# --- resident ID

_S = r"(?: ?[.\-] ?| {1,2})"  # one separator
_S1 = r"[ .\-]"  # the same as one character

# In one piece or in groups; groups start where no other group stands before them.
_CN_ID = re.compile(
    rf"[1-9](?<![0-9].)(?:[0-9]{{16}}[0-9Xx]|(?<![0-9]{_S1}.)(?:{_S}?[0-9]){{16}}{_S}?[0-9Xx]){RIGHT}"
)
_PROVINCES = frozenset(
    str(code)
    for codes in (range(11, 16), range(21, 24), range(31, 38), range(41, 47), range(50, 55))
    for code in (*codes, 61, 62, 63, 64, 65, 71, 81, 82, 83, 91)
)
_CN_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CN_ID_ZEROS = ord("0") * sum(_CN_ID_WEIGHTS)
_CN_ID_CHECKS = "10X98765432"  # by remainder modulo 11
_CN_ID_YEARS = range(1890, 2061)  # no clock here: the same text always has the same verdict

CN_ID_SHAPES = (Shape(_CN_ID),)


def find_cn_ids(text: str, lower: str) -> Iterator[Match]:
    """Chinese resident ID numbers (GB 11643-1999, 18 characters)."""
    spans = scan_values(_CN_ID, text, lambda value: is_cn_id(bare(value)))
    yield from matches("CN_ID", "cn_id", spans)


def is_cn_id(number: str) -> bool:
    """Whether 18 ASCII characters are a resident ID: province, date of birth, check character."""
    if number[:2] not in _PROVINCES or int(number[6:10]) not in _CN_ID_YEARS:
        return False
    try:
        date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    total = sum(map(mul, _CN_ID_WEIGHTS, number.encode())) - _CN_ID_ZEROS
    return _CN_ID_CHECKS[total % 11] == number[17].upper()


# --- unified social credit code

_USCC_CHAR = "[0-9A-HJ-NPQRTUWXYa-hj-npqrtuwxy]"
_CN_USCC = re.compile(  # by its parts (authority, region, organization, check), or in groups
    rf"{LEFT}[1-9ANYany](?:[0-9A-Ya-y][ \-]?[0-9]{{6}}[ \-]?{_USCC_CHAR}{{9}}[ \-]?{_USCC_CHAR}"
    rf"|{_USCC_CHAR}{{3}}(?:[ \-]{_USCC_CHAR}{{4}}){{3}}[ \-]{_USCC_CHAR}{{2}}"
    rf"|{_USCC_CHAR}{{2}}(?:[ \-]{_USCC_CHAR}{{3}}){{5}}){RIGHT}"
)
_USCC_ALPHABET = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_USCC_VALUES = {char: value for value, char in enumerate(_USCC_ALPHABET)}

CN_USCC_SHAPES = (Shape(_CN_USCC),)


def find_cn_usccs(text: str, lower: str) -> Iterator[Match]:
    """Unified social credit codes of Chinese organizations (GB 32100-2015)."""
    spans = scan_values(_CN_USCC, text, lambda value: is_cn_uscc(bare(value)))
    yield from matches("CN_USCC", "cn_uscc", spans)


def is_cn_uscc(value: str) -> bool:
    """Whether 18 characters are a social credit code: authority, region, check character."""
    if value[2:4] not in _PROVINCES and value[2:4] != "10":
        return False
    if len(set(value)) < 4 or any(char not in _USCC_VALUES for char in value):
        return False
    total = sum(_USCC_VALUES[char] * pow(3, i, 31) for i, char in enumerate(value[:17]))
    return _USCC_ALPHABET[(31 - total % 31) % 31] == value[17]


# --- licence plates

_PLATE_PROVINCES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼"
_PLATE_LETTER = "A-HJ-NP-Za-hj-np-z"
_LICENSE_PLATE = re.compile(  # in one piece behind its place, or each character apart
    rf"[{_PLATE_PROVINCES}] ?[{_PLATE_LETTER}](?:[ ·.・•\-]?(?:[{_PLATE_LETTER}0-9]{{5,6}}"
    rf"|[{_PLATE_LETTER}0-9]{{4}}[挂学警港澳领])|(?:[ ·.・•\-]{{1,2}}[{_PLATE_LETTER}0-9]){{5,6}})"
    rf"{RIGHT}"
)
_UK_PLATE = re.compile(rf"{LEFT}[A-Z]{{2}}[0-9]{{2}} ?[A-Z]{{3}}{RIGHT}")
_US_PLATE = re.compile(rf"{LEFT}[0-9]{{0,3}}[A-Z]{{1,4}}[ \-]?[0-9]{{2,4}}[A-Z]{{0,3}}{RIGHT}")
_PLATE_WORDS = words(
    r"licen[cs]e plates?|number plates?|plate (?:no|number)|plates?|registration|reg\.?",
    "车牌",
)
_PLATE_STEMS = ("plate", "registration", "reg", "车牌")

PLATE_SHAPES = (
    Shape(_LICENSE_PLATE),
    Shape(_UK_PLATE, reach.NAME_AFTER),
    Shape(_US_PLATE, reach.NAME_AFTER),
)


def find_license_plates(text: str, lower: str) -> Iterator[Match]:
    """Chinese plates by their form; British and American ones where the text names them."""
    if not text.isascii():
        spans = scan_values(_LICENSE_PLATE, text, _is_cn_plate)
        yield from matches("LICENSE_PLATE", "cn_plate", spans)
    if has_any(_PLATE_STEMS, lower) and _PLATE_WORDS.search(lower):
        for pattern in (_UK_PLATE, _US_PLATE):
            for found in scan(pattern, text, lambda found: _is_named_plate(found, lower)):
                yield Match("LICENSE_PLATE", "named_plate", found.start(), found.end())


def _is_cn_plate(value: str) -> bool:
    """At least two digits, so that a word in capitals is no plate; not all characters alike."""
    serial = bare(value)[2:]
    return sum(map(serial.count, "0123456789")) >= 2 and len(set(serial)) > 1


def _is_named_plate(found: re.Match[str], lower: str) -> bool:
    n_chars = len(bare(found[0]))
    return 5 <= n_chars <= 8 and is_near(_PLATE_WORDS, lower, found.start(), found.end())


# --- passports

_PASSPORT = re.compile(
    rf"{LEFT}(?:[A-Za-z]{{1,2}}[ \-]?[0-9]{{6,9}}|[0-9]{{9}}|[0-9]{{2}}[A-Z]{{2}}[0-9]{{5}}"
    rf"|[CFGHJKLMNPRTVWXYZ][0-9CFGHJKLMNPRTVWXYZ]{{8}}){RIGHT}"
)
_PASSPORT_WORDS = words(r"passports?|pasaporte|passeport|reisepass|travel document", "护照|通行证")
_PASSPORT_STEMS = ("passport", "pasaporte", "passeport", "reisepass", "travel", "护照", "通行证")

PASSPORT_SHAPES = (Shape(_PASSPORT, reach.NAME_AFTER),)


def find_passports(text: str, lower: str) -> Iterator[Match]:
    """Passport and travel permit numbers where the text names them: they have no checksum."""
    if not (has_any(_PASSPORT_STEMS, lower) and _PASSPORT_WORDS.search(lower)):
        return

    def accept(found: re.Match[str]) -> bool:
        has_digits = sum("0" <= char <= "9" for char in found[0]) >= 4
        return (
            has_digits
            and len(set(bare(found[0]))) > 2
            and is_near(_PASSPORT_WORDS, lower, found.start(), found.end())
        )

    for found in scan(_PASSPORT, text, accept):
        yield Match("PASSPORT", "named_passport", found.start(), found.end())
