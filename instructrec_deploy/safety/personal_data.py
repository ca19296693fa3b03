"""Personal data: which recognizer finds which type, and what a text must hold for it to be tried.

All work on a folded text (see text/normalize.py), in linear time: patterns have bounded length. A
value that fails its checksum is not reported.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Callable, Iterable
from functools import lru_cache

from instructrec_deploy.safety.match import Match
from instructrec_deploy.safety.outlines import Gate, Outline
from instructrec_deploy.safety.pending import Shape, first_open
from instructrec_deploy.safety.recognizers.addresses import (
    CN_ADDRESS_SHAPES,
    EN_ADDRESS_SHAPES,
    find_addresses,
)
from instructrec_deploy.safety.recognizers.bank import (
    CARD_GATE,
    CARD_SHAPES,
    IBAN_SHAPES,
    find_cards,
    find_ibans,
)
from instructrec_deploy.safety.recognizers.chat import CHAT_SHAPES, find_chat_ids
from instructrec_deploy.safety.recognizers.china import (
    CN_ID_SHAPES,
    CN_USCC_SHAPES,
    PASSPORT_SHAPES,
    PLATE_SHAPES,
    find_cn_ids,
    find_cn_usccs,
    find_license_plates,
    find_passports,
)
from instructrec_deploy.safety.recognizers.contact import (
    EMAIL_SHAPES,
    IP_SHAPES,
    find_emails,
    find_ips,
)
from instructrec_deploy.safety.recognizers.phone import PHONE_SHAPES, find_phones
from instructrec_deploy.safety.recognizers.secrets import (
    SECRET_SHAPES,
    URL_SHAPES,
    find_secrets,
    find_urls,
    open_pem,
)
from instructrec_deploy.safety.recognizers.western import NATIONAL_IDS
from instructrec_deploy.safety.spellings import (
    SPELLING_SHAPES,
    apart,
    apply_edits,
    put_together,
    spelled,
    unspell,
)
from instructrec_deploy.text.normalize import lower_in_place

# A recognizer takes a folded text and the same in lower case.
Recognizer = Callable[[str, str], Iterable[Match]]

# Gates: what a text must hold before the dearer patterns are tried.
_DIGIT = re.compile("[0-9]")
_NUMBER = re.compile(r"[0-9](?:[ .\-()]{0,3}[0-9]){6}")
_CODE = re.compile(r"[0-9](?:[ .\-]?[0-9A-Za-z]){5}|[A-Za-z][0-9](?:[ .\-]?[0-9A-Za-z]){4}")
_AT = re.compile("@")
_PLACE = re.compile("[0-9号弄栋幢座楼室期元]")
_URL = re.compile("://")
_IBAN = re.compile(r"(?<![0-9A-Za-z])[A-Za-z]{2}[0-9]{2}[ -]?[0-9A-Za-z]")
_IP = re.compile(r"[0-9]\.[0-9]{1,3}\.[0-9]|[23][0-9A-Fa-f]{3}:")
_ANYTHING = re.compile("")

_NO_GATE = Gate()
# What the outline of a text must hold, and how many digits the text, for a value of a type.
_GATES = {
    "CN_ID": (17, Gate(joined=(b"0" * 17,))),
    "CN_USCC": (
        2,
        Gate(kinds=(b"000000",), groups=(b"aaaa aaaa aaaa aaaa aa", b"aaa aaa aaa aaa aaa aaa")),
    ),
    "CREDIT_CARD": (12, CARD_GATE),
    "IBAN": (2, Gate(kinds=(b"aa00",))),
    "IP": (1, Gate(kinds=(b"0.0", b"0:", b"a:"))),
    "PASSPORT": (4, _NO_GATE),
    "LICENSE_PLATE": (2, _NO_GATE),
    "PHONE": (7, Gate(joined=(b"0" * 7,))),
    "US_SSN": (9, Gate(kinds=(b"0" * 9, b"000-00-0000", b"000 00 0000", b"000.00.0000"))),
    "UK_NINO": (6, Gate(joined=(b"aa000000a",))),
    "UK_NHS": (10, Gate(joined=(b"0" * 10,))),
    "DE_TAX_ID": (11, Gate(joined=(b"0" * 11,))),
    "FR_NIR": (14, Gate(joined=(b"0" * 15, b"000000a00000000"))),
    "ES_DNI": (7, Gate(joined=(b"00000000a", b"a0000000a"))),
    "NL_BSN": (9, Gate(joined=(b"0" * 9,))),
    "IT_FISCAL": (7, Gate(kinds=(b"aaaaaa00a00a000a",))),
    "PL_PESEL": (11, Gate(joined=(b"0" * 11,))),
}
_MANY_DIGITS = max(n_digits for n_digits, _ in _GATES.values())  # more open nothing else
# Types of which a value can stand in a text without a letter; the others need one, or a word.
_WORDLESS = frozenset(["CN_ID", "CN_USCC", "CREDIT_CARD", "IP", "PHONE", "US_SSN", "FR_NIR"])

# The first of equals wins an overlap: what a checksum proves stands before what only looks like it.
RECOGNIZERS: dict[str, tuple[re.Pattern[str], Recognizer]] = {
    "CN_ID": (_NUMBER, find_cn_ids),
    "CN_USCC": (_CODE, find_cn_usccs),
    "CREDIT_CARD": (_NUMBER, find_cards),
    "IBAN": (_IBAN, find_ibans),
    "EMAIL": (_AT, find_emails),
    "IP": (_IP, find_ips),
    "URL": (_URL, find_urls),
    "PASSPORT": (_DIGIT, find_passports),
    "LICENSE_PLATE": (_DIGIT, find_license_plates),
    **{national.category: (_CODE, national.find) for national in NATIONAL_IDS},
    "PHONE": (_NUMBER, find_phones),
    "CHAT_ID": (_ANYTHING, find_chat_ids),
    "ADDRESS": (_PLACE, find_addresses),
    "SECRET": (_ANYTHING, find_secrets),
}


# Types that a spelling may hide; the others are no numbers or addresses of mail.
_SPELLED = frozenset(RECOGNIZERS) - {"ADDRESS", "SECRET", "URL", "LICENSE_PLATE", "IP", "PASSPORT"}

SHAPES: dict[str, tuple[Shape, ...]] = {
    "CN_ID": CN_ID_SHAPES,
    "CN_USCC": CN_USCC_SHAPES,
    "CREDIT_CARD": CARD_SHAPES,
    "IBAN": IBAN_SHAPES,
    "EMAIL": EMAIL_SHAPES,
    "IP": IP_SHAPES,
    "URL": URL_SHAPES,
    "PASSPORT": PASSPORT_SHAPES,
    "LICENSE_PLATE": PLATE_SHAPES,
    **{national.category: national.shapes for national in NATIONAL_IDS},
    "PHONE": PHONE_SHAPES,
    "CHAT_ID": CHAT_SHAPES,
    "ADDRESS": (*CN_ADDRESS_SHAPES, *EN_ADDRESS_SHAPES),
    "SECRET": SECRET_SHAPES,
}


def open_personal_data(text: str, lower: str, types: frozenset[str], start: int) -> int:
    """Where the first stretch begins that more text could turn into a value, or change as one.

    The text's length where there is none. What was decided before `start` is left aside.
    """
    if not types:
        return len(text)
    first = end = first_open(SPELLING_SHAPES, text, lower, start)
    for name in SHAPES.keys() & types:
        first = min(first, first_open(SHAPES[name], text, lower, start))
    if "SECRET" in types:
        first = min(first, open_pem(text, start))
    # What comes may be spelled apart: so it counts as open, too, what reaches to there.
    names = SHAPES.keys() & types & _SPELLED
    shapes = [shape for name in names for shape in SHAPES[name]]
    if end < len(text):
        first = min(first, first_open(shapes, text[:end], lower[:end], start))
    for plain in (apply_edits(text, spelled(text, lower)), apply_edits(text, apart(text))):
        if plain is None:
            continue
        cut = bisect_left(plain.starts, end)
        copy = plain.text[:cut]
        at = first_open(shapes, copy, lower_in_place(copy), bisect_left(plain.starts, start))
        first = min(first, plain.starts[at] if at < cut else end)
    return first


def find_personal_data(text: str, types: frozenset[str]) -> list[Match]:
    """All hits of the given types in a folded text, in no order; hits may overlap.

    A text with spelled-out or spaced-out values is searched as it is and with them put together.
    """
    lower = lower_in_place(text)
    hits = _find(text, lower, types)
    for plain in (unspell(text, lower), put_together(text)):
        if plain is None:
            continue
        new, starts, ends = tuple.__new__, plain.starts, plain.ends
        there = _find(plain.text, lower_in_place(plain.text), types & _SPELLED)
        for category, rule, start, end, is_quoted, score in there:
            last = starts[end - 1]
            span = starts[start], ends.get(last, last + 1)
            hits.append(new(Match, (category, rule, *span, is_quoted, score)))
    return hits


def _find(text: str, lower: str, types: frozenset[str]) -> list[Match]:
    hits: list[Match] = []
    outline = Outline(text)
    if text.isascii() and b"a" not in outline.kinds:
        types &= _WORDLESS
    is_open: dict[re.Pattern[str], bool] = {}
    for gate, pattern, find in _recognizers(types, min(outline.n_digits, _MANY_DIGITS)):
        if gate is not _NO_GATE and not gate.is_open(outline):
            continue
        if pattern not in is_open:
            is_open[pattern] = pattern.search(text) is not None
        if is_open[pattern] and find is find_phones:
            hits += find_phones(text, lower, outline)
        elif is_open[pattern]:
            hits += find(text, lower)
    return hits


@lru_cache(maxsize=512)
def _recognizers(
    types: frozenset[str], n_digits: int
) -> tuple[tuple[Gate, re.Pattern[str], Recognizer], ...]:
    """Those of these types that a text with so many digits may hold a value for."""
    found = []
    for name, (pattern, find) in RECOGNIZERS.items():
        least, gate = _GATES.get(name, (0, _NO_GATE))
        if name in types and n_digits >= least:
            found.append((gate, pattern, find))
    return tuple(found)
