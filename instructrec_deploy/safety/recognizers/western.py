"""National identifiers of the US, the UK and the EU, by shape, checksum and the words around.

An identifier whose shape or checksum says little (nine or ten bare digits) counts only where the
text names it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from operator import mul

from instructrec_deploy.safety import reach
from instructrec_deploy.safety.match import Match, scan
from instructrec_deploy.safety.pending import Shape
from instructrec_deploy.safety.recognizers.nearby import LEFT, RIGHT, bare, has_any, is_near, words

_S = r"[ .\-]?"


@dataclass(frozen=True, slots=True)
class NationalId:
    """One identifier.

    Attributes:
        category: its public type name.
        pattern: its shape in a folded text; bounded in length.
        is_valid: checksum and ranges, on the bare characters in upper case.
        names: words that name it.
        stems: parts of words one of which every such word has.
        gate: what a text must hold where no word names it.
        plain: shapes that need no such word; None for none.
        has_capital: whether the gate asks for a capital letter.
    """

    category: str
    pattern: re.Pattern[str]
    is_valid: Callable[[str], bool]
    names: re.Pattern[str]
    stems: tuple[str, ...]
    plain: re.Pattern[str] | None = None
    gate: re.Pattern[str] | None = None
    has_capital: bool = False

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """What more text could turn into one."""
        return (Shape(self.pattern, reach.NAME_AFTER),)

    def find(self, text: str, lower: str) -> Iterator[Match]:
        """Hits in a folded text; `lower` is the same in lower case."""
        has_name = has_any(self.stems, lower) and self.names.search(lower) is not None
        if not has_name and not self._may_be(text, lower):
            return

        def accept(found: re.Match[str]) -> bool:
            is_plain = self.plain is not None and bool(self.plain.fullmatch(found[0]))
            if not is_plain and not has_name:
                return False
            return self.is_valid(bare(found[0])) and (
                is_plain or is_near(self.names, lower, found.start(), found.end())
            )

        for found in scan(self.pattern, text, accept):
            yield Match(self.category, self.category.lower(), found.start(), found.end())

    def _may_be(self, text: str, lower: str) -> bool:
        """Whether a text may hold one that no word names."""
        if self.gate is None or (self.has_capital and text == lower):
            return False
        return self.gate.search(text) is not None


def is_us_ssn(digits: str) -> bool:
    """Whether nine digits may be a social security number (none begins with 000, 666, 9)."""
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    if area in ("000", "666") or area[0] == "9" or group == "00" or serial == "0000":
        return False
    # 078-05-1120 and 219-09-9999 were printed on sample cards; 123-45-6789 stands in every manual.
    return digits not in ("078051120", "219099999", "123456789") and len(set(digits)) > 1


def is_uk_nino(value: str) -> bool:
    """Whether the letters of a National Insurance number are ones that are given out."""
    head = value[:2]
    is_unused = head in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")
    return not (is_unused or head[0] in "DFIQUV" or head[1] in "DFIOQUV")


def is_uk_nhs(digits: str) -> bool:
    """Checksum modulo 11 of an NHS number."""
    total = sum(map(mul, range(10, 1, -1), map(int, digits[:9])))
    return (11 - total % 11) % 11 == int(digits[9]) and len(set(digits)) > 1


def is_de_tax_id(digits: str) -> bool:
    """A German tax ID: one digit of the first ten repeats; check digit by ISO 7064, 11,10."""
    counts = sorted(digits[:10].count(digit) for digit in set(digits[:10]))
    if digits[0] == "0" or counts[-1] not in (2, 3) or counts[:-1] != [1] * (len(counts) - 1):
        return False
    product = 10
    for digit in digits[:10]:
        product = (((int(digit) + product) % 10 or 10) * 2) % 11
    return (11 - product) % 10 == int(digits[10])


def is_fr_nir(value: str) -> bool:
    """A French social security number: month, department (Corsica 2A, 2B), checksum modulo 97."""
    body, key = value[:13].replace("2A", "19").replace("2B", "18"), value[13:]
    if not (body.isdecimal() and key.isdecimal()):
        return False
    month = int(body[3:5])
    is_month = 1 <= month <= 12 or 20 <= month <= 42 or month >= 50
    return is_month and 97 - int(body) % 97 == int(key)


def is_es_dni(value: str) -> bool:
    """A Spanish DNI or NIE: the letter behind the number is its remainder modulo 23."""
    digits = str("XYZ".find(value[0])) + value[1:8] if value[0] in "XYZ" else value[:8]
    return "TRWAGMYFPDXBNJZSQVHLCKE"[int(digits) % 23] == value[8]


def is_nl_bsn(digits: str) -> bool:
    """A Dutch citizen service number: the eleven test."""
    total = sum(map(mul, range(9, 1, -1), map(int, digits[:8]))) - int(digits[8])
    return total % 11 == 0 and len(set(digits)) > 1


# What a letter A to Z counts at an odd place; a digit counts as the letter of its rank.
_IT_ODD = (
    *(1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18),
    *(20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23),
)


def is_it_fiscal(value: str) -> bool:
    """An Italian fiscal code: its check letter."""
    places = [int(char) if char.isdecimal() else ord(char) - 65 for char in value[:15]]
    total = sum(_IT_ODD[place] for place in places[::2]) + sum(places[1::2])
    return chr(65 + total % 26) == value[15]


def is_pl_pesel(digits: str) -> bool:
    """A Polish PESEL: date of birth (the century is in the month) and check digit."""
    century, month = divmod(int(digits[2:4]), 20)
    year = (1900, 2000, 2100, 2200, 1800)[century] + int(digits[:2])
    try:
        date(year, month, int(digits[4:6]))
    except ValueError:
        return False
    weights = (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)
    total: int = sum(map(mul, weights, map(int, digits)))
    return total % 10 == 0


def _shape(pattern: str) -> re.Pattern[str]:
    return re.compile(f"{LEFT}(?:{pattern}){RIGHT}")


NATIONAL_IDS = (
    NationalId(
        "US_SSN",
        _shape(r"(?<![0-9]-)[0-8][0-9]{2}([ .\-]?)[0-9]{2}\1[0-9]{4}(?!-[0-9])"),
        is_us_ssn,
        words(r"ssn|ss ?#|soc(?:ial)?\.?(?: ?sec(?:urity)?)?|itin", "社会安全|社会保障|社安号"),
        stems=("ssn", "ss#", "ss #", "soc", "itin", "社会", "社安"),
        gate=re.compile(r"[0-9]-[0-9]{2}-[0-9]{4}"),
        plain=re.compile(r"[0-9]{3}-[0-9]{2}-[0-9]{4}"),
    ),
    NationalId(
        "UK_NINO",
        _shape(rf"[A-Za-z]{{2}}{_S}[0-9]{{2}}{_S}[0-9]{{2}}{_S}[0-9]{{2}}{_S}[A-Da-d]"),
        is_uk_nino,
        words(r"nino|national insurance|ni (?:no|number|num)|insurance (?:no|number)", "国民保险"),
        stems=("nino", "insurance", "ni n", "国民保险"),
        gate=re.compile(r"[A-Z]{2} ?[0-9]{2} ?[0-9]{2}"),
        has_capital=True,
        plain=re.compile(r"[A-Z]{2}( ?)[0-9]{2}\1[0-9]{2}\1[0-9]{2}\1[A-D]"),
    ),
    NationalId(
        "UK_NHS",
        _shape(rf"[0-9]{{3}}{_S}[0-9]{{3}}{_S}[0-9]{{4}}"),
        is_uk_nhs,
        words(
            r"nhs|national health|health service|patient (?:no|number|id)", "国民医疗|国家医疗服务"
        ),
        stems=("nhs", "health", "patient", "国民医疗", "国家医疗"),
    ),
    NationalId(
        "DE_TAX_ID",
        _shape(r"[1-9][0-9]([ /.\-]?)[0-9]{3}\1[0-9]{3}\1[0-9]{3}"),
        is_de_tax_id,
        words(
            r"steuer[a-z\-]*(?:nummer|id|identifikationsnummer|nr)?|idnr|id-nr|tin"
            r"|tax(?:payer)? (?:id|no|number|identification)[a-z]*",
            "税号|税务识别|纳税",
        ),
        stems=("steuer", "id", "tin", "tax", "税"),
    ),
    NationalId(
        "FR_NIR",
        re.compile(  # its first digit, then what must stand before it
            rf"[12](?<![0-9A-Za-z].){_S}[0-9]{{2}}{_S}[0-9]{{2}}{_S}(?:[0-9]{{2}}|2[ABab])"
            rf"{_S}[0-9]{{3}}{_S}[0-9]{{3}}{_S}[0-9]{{2}}{RIGHT}"
        ),
        is_fr_nir,
        words(r"nir|insee|s[eé]curit[eé] sociale|s[eé]cu|social security", "社保|社会保险"),
        stems=("nir", "insee", "cu", "社保", "社会保险"),
        gate=re.compile(r"[12][ .\-]?[0-9]{2}[ .\-]?[0-9]{2}[ .\-]?[0-9][0-9ABab]"),
        plain=re.compile(r".{15,}"),  # 15 digits with two of them for the check: chance is 1 in 97
    ),
    NationalId(
        "ES_DNI",
        _shape(rf"(?:[0-9]{{2}}\.?[0-9]{{3}}\.?[0-9]{{3}}|[XYZxyz]-?[0-9]{{7}}){_S}[A-Za-z]"),
        is_es_dni,
        words(r"dni|nie|nif|documento nacional|extranjero", "西班牙"),
        stems=("dni", "nie", "nif", "documento", "extranjero", "西班牙"),
        gate=re.compile(r"[0-9]-?[A-Z](?![0-9A-Za-z])"),
        has_capital=True,
        plain=re.compile(r"[0-9]{8}-?[A-Z]|[XYZ]-?[0-9]{7}-?[A-Z]"),
    ),
    NationalId(
        "NL_BSN",
        _shape(r"[0-9]{3}([ .\-]?)[0-9]{3}\1[0-9]{3}|[0-9]{4}\.[0-9]{2}\.[0-9]{3}"),
        is_nl_bsn,
        words(r"bsn|burgerservice(?:nummer|nr)?|sofi(?:nummer)?|citizen service", "公民服务号"),
        stems=("bsn", "burgerservice", "sofi", "citizen", "公民"),
    ),
    NationalId(
        "IT_FISCAL",
        _shape(r"[A-Za-z]{6}[0-9]{2}[A-EHLMPRSTa-ehlmprst][0-9]{2}[A-Za-z][0-9]{3}[A-Za-z]"),
        is_it_fiscal,
        words(r"codice fiscale|fiscal code|c\.?f\.?", "意大利税号"),
        stems=("fiscal", "cf", "c.f", "意大利"),
        gate=re.compile(r"[A-Za-z][0-9]{3}[A-Za-z]"),
        plain=re.compile(r".{16}"),
    ),
    NationalId(
        "PL_PESEL",
        _shape(r"[0-9]{11}|[0-9]{6}[ \-][0-9]{5}"),
        is_pl_pesel,
        words(r"pesel(?:u|em)?", "波兰"),
        stems=("pesel", "波兰"),
    ),
)
