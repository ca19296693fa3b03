"""Kinds of made-up personal data in the ways that people write them, and harmless look-alikes.

Values pass their checks and belong to nobody; a seed makes them. `VALUES` has (type, maker) by
kind, `HARMLESS` the makers of look-alikes.
"""

from __future__ import annotations

import random
import re
import string
import uuid
from collections.abc import Callable

from instructrec_deploy.safety.recognizers.bank import is_luhn
from tests.unit.safety import made_up as made

Maker = Callable[[random.Random], str]
_MARKS = {
    "#": string.digits,
    "%": "23456789",
    "~": "abcdefghijkmnoprstuvwxyz",
    "*": "abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789",
}


def _of(*patterns: str) -> Maker:
    """One of the patterns: `#` is a digit, `%` 2 to 9, `~` a letter, `*` either."""

    def make(rng: random.Random) -> str:
        return "".join(rng.choice(_MARKS.get(char, char)) for char in rng.choice(patterns))

    return make


def _cut(maker: Maker, *sizes: int, mark: str = " ") -> Maker:
    """The maker's values in groups."""
    return lambda rng: made.grouped(maker(rng), *sizes, mark=mark)


def _fours(maker: Maker) -> Maker:
    return lambda rng: " ".join(re.findall(r".{1,4}", maker(rng)))


def _no_card(maker: Maker) -> Maker:
    """The maker's digits, those apart that are a card number by chance."""

    def make(rng: random.Random) -> str:
        while is_luhn(found := maker(rng)):
            pass
        return found

    return make


def _us_phone(pattern: str) -> Maker:
    areas = (212, 303, 415, 512, 617, 718, 808)
    return lambda rng: pattern.format(
        rng.choice(areas), f"{rng.randint(220, 899)}".replace("11", "12"), rng.randint(1000, 9999)
    )


def _cn_mobile(rng: random.Random) -> str:
    heads = ("135", "136", "151", "158", "176", "182", "189", "191")
    return rng.choice(heads) + made.digits(rng, 8)


def _card(length: int, *heads: str) -> Maker:
    return lambda rng: made.card(rng, rng.choice(heads), length)


def _iban(country: str, account: str) -> str:
    """An IBAN with right check digits."""
    digits = "".join(str(int(char, 36)) for char in account + country + "00")
    return f"{country}{98 - int(digits) % 97:02}{account}"


def _gb_iban(rng: random.Random) -> str:
    return _iban("GB", rng.choice(("BARC", "NWBK", "LOYD")) + made.digits(rng, 14))


def _nl_iban(rng: random.Random) -> str:
    return _iban("NL", rng.choice(("ABNA0", "INGB0", "RABO0")) + made.digits(rng, 9))


def _fr_iban(rng: random.Random) -> str:
    bank, branch, account = (made.digits(rng, n) for n in (5, 5, 11))
    key = 97 - (89 * int(bank) + 15 * int(branch) + 3 * int(account)) % 97
    return _iban("FR", f"{bank}{branch}{account}{key:02}")


def _es_iban(rng: random.Random) -> str:
    bank, account = made.digits(rng, 8), made.digits(rng, 10)
    checks = (
        11 - sum(int(digit) * (2**i % 11) for i, digit in enumerate(number.zfill(10))) % 11
        for number in (bank, account)
    )
    return _iban("ES", bank + "".join(f"{ {11: 0, 10: 1}.get(n, n) }" for n in checks) + account)


def _it_iban(rng: random.Random) -> str:
    odd = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21)  # what a digit counts in the first, third, ... place
    account = made.digits(rng, 22)
    total = sum(int(digit) if at % 2 else odd[int(digit)] for at, digit in enumerate(account))
    return _iban("IT", string.ascii_uppercase[total % 26] + account)


def _ipv4(rng: random.Random) -> str:
    head = rng.choice((23, 81, 93, 145, 185))
    return ".".join(map(str, (head, *(rng.randint(2, 250) for _ in range(3)))))


def _ipv6(rng: random.Random) -> str:
    return ":".join(("2a02", "8071", *(f"{rng.randint(0x1000, 0xFFFF):x}" for _ in range(6))))


def _nie(rng: random.Random) -> str:
    number = rng.randint(0, 9_999_999)
    return f"X{number:07}{'TRWAGMYFPDXBNJZSQVHLCKE'[number % 23]}"


def _ean(head: str) -> Maker:
    def make(rng: random.Random) -> str:
        body = head + made.digits(rng, 12 - len(head))
        total = sum(int(digit) * (3 if i % 2 else 1) for i, digit in enumerate(body))
        return f"{body}{-total % 10}"

    return make


def _hex(n: int) -> Maker:
    return lambda rng: f"{rng.getrandbits(4 * n):0{n}x}"


_MAIL = ("@mail.example.org", "@example.net", "@post.example.co.uk", "@firma.example.de")
_VISA, _MASTER, _AMEX = _card(16, "4"), _card(16, "51", "53", "55"), _card(15, "34", "37")
_UNION = _card(19, "621226", "622848", "621700", "622588")
VALUES: dict[str, tuple[str, Maker]] = {
    "us_phone": ("PHONE", _us_phone("{}-{}-{}")),
    "us_phone_paren": ("PHONE", _us_phone("({}) {}-{}")),
    "us_phone_dots": ("PHONE", _us_phone("{}.{}.{}")),
    "us_phone_plain": ("PHONE", _us_phone("{}{}{}")),
    "us_phone_plus": ("PHONE", _us_phone("+1 {} {} {}")),
    "e164": ("PHONE", _us_phone("+1{}{}{}")),
    "uk_mobile": ("PHONE", _of("07911 12####", "07400 12####")),
    "uk_mobile_plus": ("PHONE", _of("+44 7911 12####", "+44 7400 12####")),
    "uk_landline": ("PHONE", _of("020 7%## ####", "0161 4## ####", "0131 55# ####")),
    "de_phone": ("PHONE", _of("+49 30 2#######", "+49 151 2#######")),
    "fr_phone": ("PHONE", _of("+33 6 1# ## ## ##", "+33 1 42 ## ## ##")),
    "es_phone": ("PHONE", _of("+34 61# ### ###", "+34 91 5## ## ##")),
    "cn_mobile": ("PHONE", _cn_mobile),
    "cn_mobile_spaced": ("PHONE", _cut(_cn_mobile, 3, 4, 4)),
    "cn_mobile_dashed": ("PHONE", _cut(_cn_mobile, 3, 4, 4, mark="-")),
    "cn_mobile_plus": ("PHONE", lambda rng: f"+86 {_cn_mobile(rng)}"),
    "cn_landline": ("PHONE", _of("010-6%######", "021-5%######", "0571-8%######")),
    "cn_landline_paren": ("PHONE", _of("(010)6%######", "（021）5%######")),
    "cn_landline_plus": ("PHONE", _of("+86-755-8%######", "0086 755 8%######")),
    "email": ("EMAIL", _of(*(f"~~~~.~~~~~~{host}" for host in _MAIL))),
    "email_plus": ("EMAIL", _of(*(f"~~~~~+shop##{host}" for host in _MAIL))),
    "email_dash": ("EMAIL", _of(*(f"~~~-~~~~~{host}" for host in _MAIL))),
    "email_under": ("EMAIL", _of(*(f"~_~~~~~_##{host}" for host in _MAIL))),
    "email_sub": ("EMAIL", _of("~~~~~~@eu.mail.~~~~~~.info", "~~~~@~~~-~~~~.~~~~.io")),
    "qq_mail": ("EMAIL", _of("%########@qq.com", "1%########@qq.com")),
    "mail_163": ("EMAIL", _of("~~~~~####@163.com", "~~~_~~##@163.com")),
    "card": ("CREDIT_CARD", _VISA),
    "card_spaced": ("CREDIT_CARD", _cut(_VISA, 4, 4, 4, 4)),
    "card_dashed": ("CREDIT_CARD", _cut(_VISA, 4, 4, 4, 4, mark="-")),
    "amex_spaced": ("CREDIT_CARD", _cut(_AMEX, 4, 6, 5)),
    "mastercard": ("CREDIT_CARD", _MASTER),
    "mastercard_spaced": ("CREDIT_CARD", _cut(_MASTER, 4, 4, 4, 4)),
    "union_card": ("CREDIT_CARD", _UNION),
    "union_card16": ("CREDIT_CARD", _card(16, "622588", "622126")),
    "union_card_spaced": ("CREDIT_CARD", _cut(_UNION, 4, 4, 4, 4, 3)),
    "iban_de": ("IBAN", made.iban),
    "iban_de_spaced": ("IBAN", _fours(made.iban)),
    "iban_gb": ("IBAN", _gb_iban),
    "iban_fr_spaced": ("IBAN", _fours(_fr_iban)),
    "iban_nl": ("IBAN", _nl_iban),
    "iban_es": ("IBAN", _es_iban),
    "iban_it_spaced": ("IBAN", _fours(_it_iban)),
    "ipv4": ("IP", _ipv4),
    "ipv6": ("IP", _ipv6),
    "ssn": ("US_SSN", made.us_ssn),
    "ssn_spaced": ("US_SSN", lambda rng: made.us_ssn(rng).replace("-", " ")),
    "ssn_plain": ("US_SSN", lambda rng: made.us_ssn(rng).replace("-", "")),
    "nino": ("UK_NINO", made.uk_nino),
    "nino_spaced": ("UK_NINO", _cut(made.uk_nino, 2, 2, 2, 2, 1)),
    "nhs": ("UK_NHS", made.uk_nhs),
    "nhs_spaced": ("UK_NHS", _cut(made.uk_nhs, 3, 3, 4)),
    "de_tax": ("DE_TAX_ID", made.de_tax_id),
    "de_tax_spaced": ("DE_TAX_ID", _cut(made.de_tax_id, 2, 3, 3, 3)),
    "nir": ("FR_NIR", made.fr_nir),
    "nir_spaced": ("FR_NIR", _cut(made.fr_nir, 1, 2, 2, 2, 3, 3, 2)),
    "dni": ("ES_DNI", made.es_dni),
    "dni_dash": ("ES_DNI", _cut(made.es_dni, 8, 1, mark="-")),
    "nie": ("ES_DNI", _nie),
    "bsn": ("NL_BSN", made.nl_bsn),
    "bsn_dots": ("NL_BSN", _cut(made.nl_bsn, 4, 2, 3, mark=".")),
    "cf": ("IT_FISCAL", made.it_fiscal),
    "pesel": ("PL_PESEL", made.pl_pesel),
    "cn_id": ("CN_ID", made.cn_id),
    "cn_id_x": ("CN_ID", lambda rng: made.cn_id(rng, check="X")),
    "cn_id_spaced": ("CN_ID", _cut(made.cn_id, 6, 8, 4)),
    "uscc": ("CN_USCC", made.cn_uscc),
    "plate": ("LICENSE_PLATE", made.cn_plate),
    "plate_dot": ("LICENSE_PLATE", _cut(made.cn_plate, 2, 5, mark="·")),
    "plate_green": ("LICENSE_PLATE", lambda rng: made.cn_plate(rng, is_electric=True)),
    "cn_passport": ("PASSPORT", _of("E########", "EA#######", "G########")),
    "us_passport": ("PASSPORT", _of("5########", "A########")),
    "uk_passport": ("PASSPORT", _of("5########", "1########")),
    "de_passport": ("PASSPORT", _of("C01X#####", "CF9H#####")),
    "token": ("URL", _of("*" * 32)),
    "hex64": ("URL", _hex(64)),
    "userinfo": ("URL", _of("~~~~~:******#*")),
    "aws_key": ("SECRET", lambda rng: "AKIA" + _of("*" * 16)(rng).upper()),
    "openai_key": ("SECRET", _of("sk-" + "*" * 48, "sk-proj-" + "*" * 48)),
    "slack_token": ("SECRET", _of("xoxb-" + "#" * 12 + "-" + "*" * 24)),
    "stripe_key": ("SECRET", _of("sk_live_" + "*" * 24)),
    "jwt": ("SECRET", _of("eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiI" + "*" * 24 + "." + "*" * 43)),
    "github_token": ("SECRET", _of("ghp_" + "*" * 36)),
    "npm_token": ("SECRET", _of("npm_" + "*" * 36)),
    "google_key": ("SECRET", _of("AIza" + "*" * 35)),
    "gitlab_token": ("SECRET", _of("glpat-" + "*" * 20)),
    "hf_token": ("SECRET", _of("hf_" + "*" * 34)),
    "sendgrid_key": ("SECRET", _of("SG." + "*" * 22 + "." + "*" * 43)),
    "password": ("SECRET", _of("~~~~~-####!", "*****$#~~*##", "Q~#~#~#~#~")),
}
HARMLESS: dict[str, Maker] = {
    "d6": _of("######"),
    "d8": _of("%#######"),
    "d10": _of("40########"),
    "d12": _no_card(_of("20##########")),
    "d13": _no_card(_of("30###########")),
    "isbn13": _ean("978"),
    "isbn13_dashed": _cut(_ean("978"), 3, 1, 4, 4, 1, mark="-"),
    "ean13": _ean("400"),
    "hex7": _hex(7),
    "hex8": _hex(8),
    "hex32": _hex(32),
    "hex40": _hex(40),
    "hex64": _hex(64),
    "uuid": lambda rng: str(uuid.UUID(int=rng.getrandbits(128), version=4)),
}
