"""Made-up personal data that passes the validators. None of it is taken from a person."""

from __future__ import annotations

import random
import string

from instructrec_deploy.safety.personal_data import is_luhn

AREAS = ("110101", "310104", "440305", "510107", "610113", "650102")
CN_MOBILE_HEADS = ("130", "138", "139", "150", "159", "166", "177", "186", "188", "199")


def cn_mobile(rng: random.Random) -> str:
    """A Chinese mobile number of 11 digits."""
    return rng.choice(CN_MOBILE_HEADS) + "".join(rng.choices(string.digits, k=8))


def cn_id(rng: random.Random, *, check: str = "") -> str:
    """A resident ID; `check` asks for a certain check character."""
    while True:
        born = f"{rng.randint(1930, 2020)}{rng.randint(1, 12):02}{rng.randint(1, 28):02}"
        body = rng.choice(AREAS) + born + f"{rng.randint(0, 999):03}"
        total = sum(int(digit) * (2 ** (17 - i) % 11) for i, digit in enumerate(body))
        last = "10X98765432"[total % 11]
        if check in ("", last):
            return body + last


def card(rng: random.Random, head: str = "4", length: int = 16) -> str:
    """A card number with a right Luhn digit."""
    body = head + "".join(rng.choices(string.digits, k=length - len(head) - 1))
    return next(body + last for last in string.digits if is_luhn(body + last))


def iban(rng: random.Random) -> str:
    """A German IBAN."""
    account = "".join(rng.choices(string.digits, k=18))
    return f"DE{98 - int(account + '131400') % 97:02}{account}"


def email(rng: random.Random) -> str:
    """An address under a reserved domain."""
    local = "".join(rng.choices(string.ascii_lowercase, k=6))
    return f"{local}.{rng.randint(1, 99)}@mail.example.{rng.choice(('com', 'org', 'cn'))}"


def ipv4(rng: random.Random) -> str:
    """A public address that is no version number."""
    return f"121.{rng.randint(10, 250)}.{rng.randint(0, 255)}.{rng.randint(1, 254)}"


def full_width(text: str) -> str:
    """ASCII in full-width forms."""
    return "".join(chr(ord(char) + 0xFEE0) if "!" <= char <= "~" else char for char in text)


def grouped(text: str, *sizes: int, mark: str = " ") -> str:
    """A text cut into groups of the given sizes."""
    parts, at = [], 0
    for size in sizes:
        parts.append(text[at : at + size])
        at += size
    return mark.join(parts)
