"""Made-up personal data that passes the validators. None of it is taken from a person."""

from __future__ import annotations

import random
import string

from instructrec_deploy.safety.recognizers.bank import is_luhn

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


def cn_uscc(rng: random.Random) -> str:
    """A unified social credit code."""
    alphabet = "0123456789ABCDEFGHJKLMNPQRTUWXY"
    body = "91" + rng.choice(AREAS) + "".join(rng.choices(alphabet, k=9))
    total = sum(alphabet.index(char) * 3**i for i, char in enumerate(body))
    return body + alphabet[-total % 31]


def cn_plate(rng: random.Random, *, is_electric: bool = False) -> str:
    """A Chinese licence plate."""
    serial = "".join(rng.choices("ABCDEFGHJKLMNPQRSTUVWXYZ", k=2)) + f"{rng.randint(100, 998):03}"
    serial = f"D{rng.randint(10000, 99998)}" if is_electric else serial
    return rng.choice("京沪粤川苏浙") + rng.choice("ABCDE") + serial


def cn_passport(rng: random.Random) -> str:
    """A Chinese passport number; it has no checksum."""
    return rng.choice("EG") + f"{rng.randint(10_000_000, 98_765_432)}"


def us_ssn(rng: random.Random) -> str:
    """A social security number in the usual groups."""
    area = rng.choice((rng.randint(1, 665), rng.randint(667, 899)))
    return f"{area:03}-{rng.randint(1, 99):02}-{rng.randint(1, 9999):04}"


def uk_nino(rng: random.Random) -> str:
    """A National Insurance number."""
    return (
        f"{rng.choice('ABCEHJLMPRS')}{rng.choice('ABCEHJLM')}{digits(rng, 6)}{rng.choice('ABCD')}"
    )


def uk_nhs(rng: random.Random) -> str:
    """An NHS number."""
    while True:
        body = digits(rng, 9)
        check = -sum((10 - i) * int(digit) for i, digit in enumerate(body)) % 11
        if check < 10 and body[0] != "0":
            return f"{body}{check}"


def de_tax_id(rng: random.Random) -> str:
    """A German tax ID: nine different digits, one of them twice, and a check digit."""
    while True:
        chosen = rng.sample(string.digits, 9)
        body = [*chosen, rng.choice(chosen)]
        rng.shuffle(body)
        if body[0] != "0":
            break
    product = 10
    for digit in body:
        total = (int(digit) + product) % 10
        product = (total or 10) * 2 % 11
    return "".join(body) + str((11 - product) % 10)


def fr_nir(rng: random.Random) -> str:
    """A French social security number."""
    body = f"{rng.choice('12')}{rng.randint(30, 99)}{rng.randint(1, 12):02}{rng.randint(10, 89)}"
    body += digits(rng, 6)
    return f"{body}{97 - int(body) % 97:02}"


def es_dni(rng: random.Random) -> str:
    """A Spanish identity number."""
    number = rng.randint(10_000_000, 99_999_999)
    return f"{number}{'TRWAGMYFPDXBNJZSQVHLCKE'[number % 23]}"


def nl_bsn(rng: random.Random) -> str:
    """A Dutch citizen service number."""
    while True:
        body = rng.choice("123456789") + digits(rng, 7)
        check = sum((9 - i) * int(digit) for i, digit in enumerate(body)) % 11
        if check < 10:
            return f"{body}{check}"


def it_fiscal(rng: random.Random) -> str:
    """An Italian fiscal code."""
    letters = "".join(rng.choices(string.ascii_uppercase, k=6))
    body = f"{letters}{digits(rng, 2)}{rng.choice('ABCDEHLMPRST')}{rng.randint(10, 31)}"
    body += rng.choice("ABCDEFGHILM") + digits(rng, 3)
    odd = [1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24]
    odd.append(23)
    total = 0
    for place, char in enumerate(body, 1):
        value = int(char) if char.isdigit() else ord(char) - ord("A")
        total += odd[value] if place % 2 else value
    return body + string.ascii_uppercase[total % 26]


def pl_pesel(rng: random.Random) -> str:
    """A Polish PESEL of the twentieth century."""
    body = f"{rng.randint(20, 99)}{rng.randint(1, 12):02}{rng.randint(1, 28):02}{digits(rng, 4)}"
    weights = (1, 3, 7, 9, 1, 3, 7, 9, 1, 3)
    total = sum(int(digit) * weight for digit, weight in zip(body, weights, strict=True))
    return f"{body}{-total % 10}"


def key(rng: random.Random, head: str, length: int) -> str:
    """A random key behind a maker's prefix."""
    return head + "".join(rng.choices(string.ascii_letters + string.digits, k=length))


def digits(rng: random.Random, n: int) -> str:
    """Random digits."""
    return "".join(rng.choices(string.digits, k=n))
