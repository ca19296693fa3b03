"""Personal data with validators: e-mail, phone, bank card, Chinese resident ID, IBAN, IP address.

All work on a folded text (see text/normalize.py), in linear time: patterns have bounded length,
e-mail starts from each "@". A value that fails its checksum is not reported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date

from instructrec_deploy.safety.match import Match, scan
from instructrec_deploy.safety.phone import find_phones, is_named_otherwise

Recognizer = Callable[[str], Iterator[Match]]

_DIGIT_OR_AT = re.compile(r"[0-9@]")
# Gates: what a text must hold before the dearer patterns are tried.
_NUMBER_GATE = re.compile(r"[0-9](?:[ .\-()]{0,3}[0-9]){6}")
_EMAIL_GATE = re.compile("@")
_IP_GATE = re.compile(r"[0-9]\.[0-9]{1,3}\.[0-9]|[23][0-9A-Fa-f]{3}:")
_L = r"(?<![0-9A-Za-z])"
_R = r"(?![0-9A-Za-z])"
_S = r"(?: ?[.\-] ?| {1,2})"  # one separator
_S1 = r"[ .\-]"  # the same as one character


def find_personal_data(text: str, types: frozenset[str]) -> list[Match]:
    """All hits of the given types in a folded text, in no order; hits may overlap.

    A text without digits and without "@" costs one search.
    """
    first = _DIGIT_OR_AT.search(text)
    if not first:
        return []
    hits: list[Match] = []
    has_number = bool(_NUMBER_GATE.search(text, first.start()))
    for name, (gate, find) in RECOGNIZERS.items():
        is_open = has_number if gate is _NUMBER_GATE else bool(gate.search(text))
        if is_open and name in types:
            hits += find(text)
    return hits


# --- e-mail

_LOCAL_CHARS = (
    "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._%+-'&"
    + "".join(chr(code) for code in range(0xC0, 0x250))  # Latin letters with accents
)
_DOMAIN = re.compile(
    r"(?:[0-9A-Za-z](?:[0-9A-Za-z-]{0,61}[0-9A-Za-z])?\.){1,8}([A-Za-z]{2,24})(?![0-9A-Za-z])"
)
_FILE_SUFFIXES = frozenset(
    ("png", "jpg", "jpeg", "gif", "svg", "webp", "ico", "css", "js", "ts", "json", "pdf", "zip")
)


def find_emails(text: str) -> Iterator[Match]:
    """E-mail addresses, from each "@" outwards; neither walk crosses another "@"."""
    at = text.find("@")
    while at >= 0:
        domain = _DOMAIN.match(text, at + 1)
        if domain and domain[1].lower() not in _FILE_SUFFIXES:
            start = _local_start(text, at)
            if start >= 0:
                yield Match("EMAIL", "email", start, domain.end())
        at = text.find("@", at + 1)


def _local_start(text: str, at: int) -> int:
    """Where the part before "@" starts; -1 if there is none, or it is masked already."""
    head = text[max(0, at - 65) : at]
    local = head[len(head.rstrip(_LOCAL_CHARS)) :].lstrip(".'&-%+")
    start = at - len(local)
    is_masked = not local.strip("xX") or text[start - 1 : start] in ("*", "•", "]")
    if len(local) > 64 or is_masked or local.endswith("."):
        return -1
    return -1 if local == "git" and text.startswith("@git", at) else start  # git@github.com:...


# --- bank cards

_CARD = re.compile(
    rf"{_L}(?:[1-69][0-9]{{11,18}}"
    rf"|[2-69][0-9]{{3}}(?:{_S}[0-9]{{4}}){{3}}(?P<tail>{_S}[0-9]{{1,3}})?"
    rf"|3[0-9]{{3}}{_S}[0-9]{{6}}{_S}[0-9]{{4,5}}"
    rf"|[69][0-9]{{5}}{_S}[0-9]{{10,13}}"
    rf"|(?<![0-9]{_S1})[2-69](?:{_S1}[0-9]){{12,18}}){_R}"
)
# Issuer prefixes with the lengths they come in; a prefix of four digits at most is enough to tell.
_ISSUERS = tuple(
    (re.compile(prefix), lengths)
    for prefix, lengths in (
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
)
_DOUBLED = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)  # digit sum of twice the digit


def find_cards(text: str) -> Iterator[Match]:
    """Card numbers by issuer prefix, length and Luhn checksum."""
    for found in scan(_CARD, text, _accept_card):
        end = found.end()
        if found["tail"] and not is_card_number(_digits(found[0])):
            end = found.start("tail")  # a security code stands behind the number
        yield Match("CREDIT_CARD", "luhn", found.start(), end)


def is_card_number(digits: str) -> bool:
    """Whether ASCII digits are a card number: known prefix, its length, checksum."""
    if len(set(digits)) < 2:  # a placeholder: all digits the same
        return False
    is_issued = any(len(digits) in lengths and prefix.match(digits) for prefix, lengths in _ISSUERS)
    return is_issued and is_luhn(digits)


def is_luhn(digits: str) -> bool:
    """Luhn's checksum (ISO/IEC 7812) over ASCII digits."""
    values = [ord(char) - 48 for char in reversed(digits)]
    return (sum(values[::2]) + sum(_DOUBLED[value] for value in values[1::2])) % 10 == 0


def _accept_card(found: re.Match[str]) -> bool:
    number = _digits(found[0])
    tail = found["tail"]
    if not is_card_number(number) and not (tail and is_card_number(number[: -len(_digits(tail))])):
        return False
    if not found[0].isdecimal():
        return True  # written in groups, as on the card
    return not _is_inside_code(found) and not is_named_otherwise(found.string, found.start())


# --- Chinese resident ID

# In one piece or in groups; groups start where no other group stands before them.
_CN_ID = re.compile(
    rf"(?<![0-9])[1-9](?:[0-9]{{16}}[0-9Xx]|(?<![0-9]{_S1}.)(?:{_S}?[0-9]){{16}}{_S}?[0-9Xx]){_R}"
)
_PROVINCES = frozenset(
    str(code)
    for codes in (range(11, 16), range(21, 24), range(31, 38), range(41, 47), range(50, 55))
    for code in (*codes, 61, 62, 63, 64, 65, 71, 81, 82, 83, 91)
)
_CN_ID_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_CN_ID_CHECKS = "10X98765432"  # by remainder modulo 11
_CN_ID_YEARS = range(1890, 2061)  # no clock here: the same text always has the same verdict


def find_cn_ids(text: str) -> Iterator[Match]:
    """Chinese resident ID numbers (GB 11643-1999, 18 characters)."""
    for found in scan(_CN_ID, text, lambda found: is_cn_id(_digits(found[0]))):
        yield Match("CN_ID", "cn_id", found.start(), found.end())


def is_cn_id(number: str) -> bool:
    """Whether 18 ASCII characters are a resident ID: province, date of birth, check character."""
    if number[:2] not in _PROVINCES or int(number[6:10]) not in _CN_ID_YEARS:
        return False
    try:
        date(int(number[6:10]), int(number[10:12]), int(number[12:14]))
    except ValueError:
        return False
    total = sum(
        weight * int(digit) for weight, digit in zip(_CN_ID_WEIGHTS, number[:17], strict=True)
    )
    return _CN_ID_CHECKS[total % 11] == number[17].upper()


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
_IBAN_HEAD = re.compile(rf"{_L}[A-Za-z]{{2}}[0-9]{{2}}(?=[ -]?[0-9A-Za-z])")
_IBAN_BODY = re.compile(r"[0-9A-Za-z](?:[ -]?[0-9A-Za-z]){14,33}")


def find_ibans(text: str) -> Iterator[Match]:
    """IBANs by country, length and checksum (ISO 13616); text right behind does not disturb."""
    for head in _IBAN_HEAD.finditer(text):
        length = _IBAN_LENGTHS.get(head[0][:2].upper())
        body = _IBAN_BODY.match(text, head.start()) if length else None
        if body is None or length is None:
            continue
        at = [i for i in range(body.start(), body.end()) if text[i] not in " -"]
        if len(at) < length:
            continue
        end = at[length - 1] + 1
        is_cut = text[end : end + 1].isascii() and text[end : end + 1].isalnum()
        if not is_cut and is_iban("".join(text[i] for i in at[:length])):
            yield Match("IBAN", "iban", head.start(), end)


def is_iban(value: str) -> bool:
    """Whether ASCII letters and digits without separators have an IBAN's checksum."""
    moved = value[4:] + value[:4]
    return int("".join(str(int(char, 36)) for char in moved)) % 97 == 1


# --- IP addresses

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = re.compile(
    rf"(?<![0-9A-Za-z.\-])({_OCTET})\.({_OCTET})\.({_OCTET})\.({_OCTET})(?!\.?[0-9A-Za-z])"
)
_IPV6 = re.compile(r"(?<![0-9A-Za-z:.])[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{2,34}(?![0-9A-Za-z:])")
_VERSION_BEFORE = re.compile(
    r"(?:ver(?:sion)?|(?<![a-z])v\.|release|build|firmware|版本号?)[^0-9]{0,4}\Z", re.I
)


def find_ips(text: str) -> Iterator[Match]:
    """Public IP addresses. Private, loopback and documentation ranges are not personal data."""
    for found in scan(_IPV4, text, _accept_ipv4):
        yield Match("IP", "ipv4", found.start(), found.end())
    for found in scan(_IPV6, text, _accept_ipv6):
        yield Match("IP", "ipv6", found.start(), found.end())


def _accept_ipv4(found: re.Match[str]) -> bool:
    a, b, c, d = (int(part) for part in found.groups())
    if max(a, b, c, d) < 10:  # a version or section number, or a public resolver (8.8.8.8)
        return False
    is_reserved = (
        a in (0, 10, 127)
        or a >= 224
        or (a, b) in ((169, 254), (192, 168))
        or (a == 172 and 16 <= b < 32)
        or (a == 100 and 64 <= b < 128)
        or (a == 198 and b in (18, 19))
        or (a, b, c) in ((192, 0, 0), (192, 0, 2), (198, 51, 100), (203, 0, 113))
    )
    return not is_reserved and not _is_version(found)


def _is_version(found: re.Match[str]) -> bool:
    """Whether it is named a version and looks like one: versions count up from small numbers."""
    parts = [int(part) for part in found.groups()]
    if max(parts) >= 64 and sum(part < 10 for part in parts) < 2:
        return False
    start = found.start()
    return bool(_VERSION_BEFORE.search(found.string[max(0, start - 14) : start]))


def _accept_ipv6(found: re.Match[str]) -> bool:
    parts = found[0].split(":")
    is_short = "::" in found[0]
    if found[0].count("::") > 1 or ":::" in found[0] or any(len(part) > 4 for part in parts):
        return False
    if found[0].endswith(":") and not found[0].endswith("::"):
        return False
    is_documentation = int(parts[0], 16) == 0x2001 and parts[1].lower() in ("db8", "0db8")
    return not is_documentation and (len(parts) <= 8 if is_short else len(parts) == 8)


# --- shared

_CODE_BEFORE = re.compile(r"(?:[A-Za-z]|(?<![0-9])[0-9]{1,12})[-_/#.]\Z")


def _is_inside_code(found: re.Match[str]) -> bool:
    """Whether the number goes on from a longer code or a decimal ("ORD-4...", "0.4...")."""
    start = found.start()
    return bool(_CODE_BEFORE.search(found.string[max(0, start - 14) : start]))


def _digits(value: str) -> str:
    return "".join(char for char in value if char not in " .-")


RECOGNIZERS: dict[str, tuple[re.Pattern[str], Recognizer]] = {
    "CN_ID": (_NUMBER_GATE, find_cn_ids),
    "CREDIT_CARD": (_NUMBER_GATE, find_cards),
    "IBAN": (_IBAN_HEAD, find_ibans),
    "EMAIL": (_EMAIL_GATE, find_emails),
    "IP": (_IP_GATE, find_ips),
    "PHONE": (_NUMBER_GATE, find_phones),
}
