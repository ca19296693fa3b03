"""Bank cards and IBANs, by issuer or country, length and checksum."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator
from itertools import groupby
from operator import itemgetter

from instructrec_deploy.safety.match import Match, scan
from instructrec_deploy.safety.outlines import Gate
from instructrec_deploy.safety.pending import Shape
from instructrec_deploy.safety.recognizers.nearby import RIGHT
from instructrec_deploy.safety.recognizers.phone import is_named_otherwise

# --- bank cards

_S = r"(?: ?[.\-] ?| {1,2})"  # one separator
_S1 = r"[ .\-]"  # the same as one character

_CARD = re.compile(  # its first digit, then what must stand before it: a search skips to digits
    rf"[1-69](?<![0-9A-Za-z].)(?:[0-9]{{11,18}}"
    rf"|(?<!1)[0-9]{{3}}(?:{_S}[0-9]{{4}}){{3}}(?P<tail>{_S}[0-9]{{1,3}})?"
    rf"|(?<=3)[0-9]{{3}}{_S}[0-9]{{6}}{_S}[0-9]{{4,5}}"
    rf"|(?<=[69])[0-9]{{5}}{_S}[0-9]{{10,13}}"
    rf"|(?<!1)(?<![0-9]{_S1}.)(?:{_S1}[0-9]){{12,18}}){RIGHT}"
)
# Issuer prefixes with the lengths they come in; a prefix of four digits at most is enough to tell.
_ISSUERS = (
    ("4", (13, 16, 19)),  # Visa
    ("5[1-5]|222[1-9]|22[3-9]|2[3-6]|27[01]|2720", (16,)),  # Mastercard
    ("3[47]", (15,)),  # American Express
    ("30[0-5]|36|38|39", (14, 16)),  # Diners
    ("35", (16, 17, 18, 19)),  # JCB
    ("1800|2131", (15,)),  # JCB, old
    ("6011|64[4-9]|65", (16, 17, 18, 19)),  # Discover
    ("62|60", (16, 17, 18, 19)),  # UnionPay and older Chinese, RuPay
    ("9558|955[0-9]|940", (16, 18, 19)),  # Chinese debit cards
    ("50|5[6-8]|63|67|6[89]", (12, 13, 15, 16, 17, 18, 19)),  # Maestro
    ("220[0-4]", (16,)),  # Mir
)
_PREFIXES = {
    length: re.compile("|".join(prefix for prefix, lengths in _ISSUERS if length in lengths))
    for length in range(12, 20)
}
_EAN_DIGITS = 13
_DOUBLED = bytes.maketrans(b"0123456789", b"0246813579")  # digit sum of twice the digit

CARD_SHAPES = (Shape(_CARD),)
# In one piece, in groups, or each digit apart.
CARD_GATE = Gate(
    kinds=(b"0" * 12,),
    spaced=(b"0000 0000 0000 0000", b"0000 000000 0000", b"000000 0000000000", b"0 " * 12 + b"0"),
)


def find_cards(text: str, lower: str) -> Iterator[Match]:
    """Card numbers by issuer prefix, length and Luhn checksum."""
    known: dict[str, bool] = {}  # of one text: the same number is tested once

    def accept(found: re.Match[str]) -> bool:
        value = found[0]
        is_card = known.get(value)
        if is_card is None:
            is_card = known[value] = _is_card(*found.group(0, "tail"))
        return is_card and (not value.isdecimal() or _stands_alone(found))

    for found in scan(_CARD, text, accept):
        end = found.end()
        if found["tail"] and not is_card_number(_digits(found[0])):
            end = found.start("tail")  # a security code stands behind the number
        yield Match("CREDIT_CARD", "luhn", found.start(), end)


def is_card_number(digits: str) -> bool:
    """Whether ASCII digits are a card number: known prefix, its length, checksum."""
    prefixes = _PREFIXES.get(len(digits))
    if prefixes is None or not prefixes.match(digits) or not is_luhn(digits):
        return False
    if len(digits) == _EAN_DIGITS and digits[0] != "4" and _is_ean(digits):
        return False  # cards of that length are Visa's; others' have all but gone
    return len(set(digits)) > 1  # a placeholder: all digits the same


def is_luhn(digits: str) -> bool:
    """Luhn's checksum (ISO/IEC 7812) over ASCII digits."""
    values = digits.encode()
    total = sum(values[::-2]) + sum(values[-2::-2].translate(_DOUBLED))
    return (total - 48 * len(values)) % 10 == 0


def _is_ean(digits: str) -> bool:
    """The checksum of a barcode's number (GS1, EAN-13)."""
    values = digits.encode()
    return (sum(values[::-2]) + 3 * sum(values[-2::-2]) - 48 * 25) % 10 == 0


def _is_card(value: str, tail: str | None) -> bool:
    """Whether a value is a card number, with or without what stands behind it."""
    number = value if value.isdecimal() else _digits(value)
    return is_card_number(number) or (
        tail is not None and is_card_number(number[: -len(_digits(tail))])
    )


def _stands_alone(found: re.Match[str]) -> bool:
    """Of a number in one piece: no part of a code, and not named as something else."""
    return not _is_inside_code(found) and not is_named_otherwise(found.string, found.start())


# --- IBAN

_IBAN_LENGTHS = {
    country: length
    for length, countries in (
        (15, "NO"),
        (16, "BE"),
        (18, "DK FI FO GL NL"),
        (19, "MK SI"),
        (20, "AT BA EE KZ LT LU XK"),
        (21, "CH HR LI LV"),
        (22, "BG BH CR DE GB GE IE ME RS VA"),
        (23, "AE GI IL IQ"),
        (24, "AD CZ ES MD PK RO SA SE SK TN VG"),
        (25, "PT"),
        (26, "IS TR"),
        (27, "FR GR IT MC MR SM"),
        (28, "AL AZ BY CY DO GT HU LB PL SV"),
        (29, "BR EG PS QA UA"),
        (30, "JO KW MU"),
        (31, "MT SC"),
        (32, "LC"),
    )
    for country in countries.split()
}
# Letter, digit and either, maybe behind a mark.
_L, _N, _C = (rf"[ -]?[{chars}]" for chars in ("A-Za-z", "0-9", "0-9A-Za-z"))
_PLAIN_CODE = _N * 2
# How the four characters behind the check digits look (ISO 13616 registry): mostly digits, else ...
_BANK_CODES = {
    country: form
    for form, countries in (
        (_L * 4, "AZ BG BH GB GI IE IQ JO KW LC LV MT MU NL PK PS QA RO SC SV VG"),
        (_L + _N * 3, "IT SM"),
        (_L * 2 + _N * 2, "GE"),
        (_C * 4, "BY DO GT MD"),
    )
    for country in countries.split()
}


def _countries() -> Iterator[str]:
    """For each first letter a pattern of the second, the check digits, and what must follow."""
    for first, countries in groupby(sorted(_IBAN_LENGTHS), key=itemgetter(0)):
        seconds: dict[str, str] = {}  # by form
        for country in countries:
            form = _BANK_CODES.get(country, _PLAIN_CODE)
            seconds[form] = seconds.get(form, "") + country[1] + country[1].lower()
        ends = "|".join(f"[{chars}][0-9]{{2}}(?={form})" for form, chars in seconds.items())
        yield f"[{first}{first.lower()}](?:{ends})"


_FIRST_LETTERS = "".join({country[0] + country[0].lower() for country in _IBAN_LENGTHS})
_IBAN_DIGITS = {ord(char): str(int(char, 36)) for char in string.ascii_letters}
_IBAN_HEAD = re.compile(r"[A-Za-z](?<![0-9A-Za-z].)[A-Za-z][0-9]{2}(?=[ -]?[0-9A-Za-z])")
_IBAN_START = re.compile(f"[{_FIRST_LETTERS}](?<![0-9A-Za-z].)(?<=(?={'|'.join(_countries())}).)")
_IBAN_BODY = re.compile(r"[0-9A-Za-z](?:[ -]?[0-9A-Za-z]){14,33}")

IBAN_SHAPES = (Shape(re.compile(rf"{_IBAN_HEAD.pattern}(?:[ -]?[0-9A-Za-z]){{11,28}}.")),)


def find_ibans(text: str, lower: str) -> Iterator[Match]:
    """IBANs by country, length and checksum (ISO 13616); text right behind does not disturb."""
    for head in _IBAN_START.finditer(text):
        start = head.start()
        length = _IBAN_LENGTHS[text[start : start + 2].upper()]
        body = _IBAN_BODY.match(text, start)
        if body is None:
            continue
        value = _digits(body[0])[:length]
        if len(value) < length or not is_iban(value):
            continue
        end = start + _prefix_chars(body[0], length)
        if not (text[end : end + 1].isascii() and text[end : end + 1].isalnum()):
            yield Match("IBAN", "iban", start, end)


def _prefix_chars(value: str, n: int) -> int:
    """How many characters hold the first n letters and digits."""
    return [at for at, char in enumerate(value, 1) if char not in " -"][n - 1]


def is_iban(value: str) -> bool:
    """Whether ASCII letters and digits without separators have an IBAN's checksum."""
    return int((value[4:] + value[:4]).translate(_IBAN_DIGITS)) % 97 == 1


_CODE_BEFORE = re.compile(r"(?:[A-Za-z]|(?<![0-9])[0-9]{1,12})[-_/#.]\Z")


def _is_inside_code(found: re.Match[str]) -> bool:
    """Whether the number goes on from a longer code or a decimal ("ORD-4...", "0.4...")."""
    start = found.start()
    return bool(_CODE_BEFORE.search(found.string[max(0, start - 14) : start]))


def _digits(value: str) -> str:
    return value.replace(" ", "").replace("-", "").replace(".", "")
