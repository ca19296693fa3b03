"""Personal data: which recognizer finds which type, and what a text must hold for it to be tried.

All work on a folded text (see text/normalize.py), in linear time: patterns have bounded length. A
value that fails its checksum is not reported.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from instructrec_deploy.safety.match import Match
from instructrec_deploy.safety.recognizers.addresses import find_addresses
from instructrec_deploy.safety.recognizers.bank import find_cards, find_ibans
from instructrec_deploy.safety.recognizers.china import (
    find_cn_ids,
    find_cn_usccs,
    find_license_plates,
    find_passports,
)
from instructrec_deploy.safety.recognizers.contact import find_emails, find_ips
from instructrec_deploy.safety.recognizers.phone import find_phones
from instructrec_deploy.safety.recognizers.secrets import find_secrets, find_urls
from instructrec_deploy.safety.recognizers.western import NATIONAL_IDS
from instructrec_deploy.safety.spellings import unspell
from instructrec_deploy.text.normalize import lower_in_place

# A recognizer takes a folded text and the same in lower case.
Recognizer = Callable[[str, str], Iterator[Match]]

# Gates: what a text must hold before the dearer patterns are tried.
_DIGIT = re.compile("[0-9]")
_NUMBER = re.compile(r"[0-9](?:[ .\-()]{0,3}[0-9]){6}")
_CODE = re.compile(r"[0-9](?:[ .\-]?[0-9A-Za-z]){5}|[A-Za-z][0-9](?:[ .\-]?[0-9A-Za-z]){4}")
_AT = re.compile("@")
_URL = re.compile("://")
_IBAN = re.compile(r"(?<![0-9A-Za-z])[A-Za-z]{2}[0-9]{2}[ -]?[0-9A-Za-z]")
_IP = re.compile(r"[0-9]\.[0-9]{1,3}\.[0-9]|[23][0-9A-Fa-f]{3}:")
_ANYTHING = re.compile("")

# The first of equals wins an overlap: what a checksum proves stands before what only looks like it.
RECOGNIZERS: dict[str, tuple[re.Pattern[str], Recognizer]] = {
    "CN_ID": (_NUMBER, find_cn_ids),
    "CN_USCC": (_CODE, find_cn_usccs),
    "CREDIT_CARD": (_NUMBER, find_cards),
    "IBAN": (_IBAN, find_ibans),
    "EMAIL": (_AT, find_emails),
    "IP": (_IP, find_ips),
    "URL": (_URL, find_urls),
    "PASSPORT": (_CODE, find_passports),
    "LICENSE_PLATE": (_DIGIT, find_license_plates),
    **{national.category: (_CODE, national.find) for national in NATIONAL_IDS},
    "PHONE": (_NUMBER, find_phones),
    "ADDRESS": (_DIGIT, find_addresses),
    "SECRET": (_ANYTHING, find_secrets),
}


# Types that a spelling may hide; the others are no numbers or addresses of mail.
_SPELLED = frozenset(RECOGNIZERS) - {"ADDRESS", "SECRET", "URL", "LICENSE_PLATE", "IP", "PASSPORT"}


def find_personal_data(text: str, types: frozenset[str]) -> list[Match]:
    """All hits of the given types in a folded text, in no order; hits may overlap.

    A text with spelled-out or spaced-out numbers is searched as it is and with them put together.
    """
    lower = lower_in_place(text)
    hits = list(_find(text, lower, types))
    plain = unspell(text, lower)
    if plain is not None:
        for hit in _find(plain.text, lower_in_place(plain.text), types & _SPELLED):
            start, end = plain.span(hit.start, hit.end)
            hits.append(replace(hit, start=start, end=end))
    return hits


def _find(text: str, lower: str, types: frozenset[str]) -> Iterator[Match]:
    is_open: dict[re.Pattern[str], bool] = {}
    for name, (gate, find) in RECOGNIZERS.items():
        if name not in types:
            continue
        if gate not in is_open:
            is_open[gate] = gate.search(text) is not None
        if is_open[gate]:
            yield from find(text, lower)
