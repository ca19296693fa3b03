"""National identifiers, plates, passports, secrets, URLs, addresses: found, and left alone."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from instructrec_deploy.safety.guard import Guard
from instructrec_deploy.safety.recognizers import china, western
from tests.unit.safety import made_up as made

RNG = random.Random(20241111)
GUARD = Guard()
Make = Callable[[random.Random], str]
Valid = Callable[[str], bool]


def _positives() -> list[tuple[str, str, str]]:
    """(template, value, type): the value must be found in the template, and only it."""
    nhs, nir, dni = made.uk_nhs(RNG), made.fr_nir(RNG), made.es_dni(RNG)
    nino, bsn, tax = made.uk_nino(RNG), made.nl_bsn(RNG), made.de_tax_id(RNG)
    ssn = made.us_ssn(RNG)
    return [
        ("my SSN is {}.", ssn, "US_SSN"),
        ("{}", made.us_ssn(RNG), "US_SSN"),
        ("social security number {}", ssn.replace("-", ""), "US_SSN"),
        ("社会安全号{}", made.us_ssn(RNG), "US_SSN"),
        ("NI number {} please", made.grouped(nino, 2, 2, 2, 2, 1), "UK_NINO"),
        ("he is {}", nino, "UK_NINO"),
        ("national insurance: {}", nino.lower(), "UK_NINO"),
        ("NHS number {}", made.grouped(nhs, 3, 3, 4), "UK_NHS"),
        ("{} (NHS)", nhs, "UK_NHS"),
        ("meine Steuer-ID: {}", made.grouped(tax, 2, 3, 3, 3), "DE_TAX_ID"),
        ("IdNr {}", tax, "DE_TAX_ID"),
        ("德国税号{}", made.de_tax_id(RNG), "DE_TAX_ID"),
        ("sécu {}", made.grouped(nir, 1, 2, 2, 2, 3, 3, 2), "FR_NIR"),
        ("numéro {}", nir, "FR_NIR"),
        ("soy {}, gracias", dni, "ES_DNI"),
        ("DNI {}", f"{dni[:8]}-{dni[8]}", "ES_DNI"),
        ("mijn BSN is {}", bsn, "NL_BSN"),
        ("burgerservicenummer {}", made.grouped(bsn, 4, 2, 3, mark="."), "NL_BSN"),
        ("codice fiscale {}", made.it_fiscal(RNG), "IT_FISCAL"),
        ("{}", made.it_fiscal(RNG), "IT_FISCAL"),
        ("mój PESEL to {}", made.pl_pesel(RNG), "PL_PESEL"),
        ("信用代码：{}", made.cn_uscc(RNG), "CN_USCC"),
        ("公司{}开票", made.full_width(made.cn_uscc(RNG)), "CN_USCC"),
        ("车牌{}", made.cn_plate(RNG), "LICENSE_PLATE"),
        ("{}的车主", made.cn_plate(RNG, is_electric=True), "LICENSE_PLATE"),
        ("停着一辆{}😀", "粤B·12G45", "LICENSE_PLATE"),
        ("车牌是{}，停了一夜", "浙 A·9J6K1", "LICENSE_PLATE"),
        ("{}的车主请挪车", "京 A 1 2 3 4 5", "LICENSE_PLATE"),
        ("蓝色的{}", "粤B·1 2 G 4 5 6", "LICENSE_PLATE"),
        ("number plate {}", "LK53 KTE", "LICENSE_PLATE"),
        ("ring {} tonight", "00 44 7911 123456", "PHONE"),
        ("从国外拨{}", "00 86 138 1234 5678", "PHONE"),
        ("护照号{}", made.cn_passport(RNG), "PASSPORT"),
        ("passport no. {}", made.cn_passport(RNG), "PASSPORT"),
        ("my passport: {}", "533218764", "PASSPORT"),
        ("key {}", made.key(RNG, "ghp_", 36), "SECRET"),
        ("用这个{}试试", made.key(RNG, "sk-proj-", 40), "SECRET"),
        ("AWS {}", "AKIA" + made.key(RNG, "", 16).upper(), "SECRET"),
        ("{}", made.key(RNG, "hf_", 34), "SECRET"),
        ("jwt {}", f"{made.key(RNG, 'eyJ', 30)}.{made.key(RNG, 'eyJ', 60)}.dBjft-x", "SECRET"),
        ("password: {}", "hunter2!x", "SECRET"),
        ("the password is {}, thanks", "Tr0ub4dor&3", "SECRET"),
        ("密码是{}，别告诉别人", "Qwe123456", "SECRET"),
        ("会议室密码{}，别外传", "Qp9y6i5v6m", "SECRET"),
        ("初始口令为“{}”，请修改", "Qwe123456", "SECRET"),
        ("买家登着，密码还是{}", "cLfPg$2ak810", "SECRET"),
        ("user ann / pwd {} -- change it", "cLfPg$2ak810", "SECRET"),
        ("前端key：{}，控制台提示", made.key(RNG, "AIza", 35), "SECRET"),
        ("prod:{} leaked", "AKIA" + made.key(RNG, "", 16).upper(), "SECRET"),
        ("SOC SEC NO {} MARRIED", "123 45 6780", "US_SSN"),
        ("API_KEY={}", made.key(RNG, "", 32), "SECRET"),
        ("Authorization: Bearer {}", made.key(RNG, "", 40), "SECRET"),
        (
            "{}",
            f"-----BEGIN RSA PRIVATE KEY-----\n{made.key(RNG, 'MII', 64)}\n"
            "-----END RSA PRIVATE KEY-----",
            "SECRET",
        ),
        ("see {}.", "https://shop.example.com/reset?token=a8f3k2d9", "URL"),
        ("打开{}，登录", "https://ann:pa55word@host.example.com/x", "URL"),
        ("{}", "postgres://app:s3cret@db.example.com:5432/main", "URL"),
        ("地址：{}。", "北京市朝阳区建国路88号院3号楼2单元501室", "ADDRESS"),
        ("我住在{}，请寄到这里", "上海市浦东新区世纪大道100号", "ADDRESS"),
        ("快递放到{}", "幸福小区3栋2单元501", "ADDRESS"),
        ("寄往{}😀", "广东省深圳市南山区科技园路１２号", "ADDRESS"),
        ("I live at {}.", "742 Evergreen Terrace, Springfield", "ADDRESS"),
        ("ship to {} please", "1600 Oak Avenue, Apt 4B, Portland, OR 97205", "ADDRESS"),
        ("at {}", "12 Rose Lane, London SW1A 2AA", "ADDRESS"),
        ("write to {}", "PO Box 1234", "ADDRESS"),
    ]


@pytest.mark.parametrize(("template", "value", "category"), _positives())
def test_a_planted_value_is_found_in_its_exact_span(
    template: str, value: str, category: str
) -> None:
    text = template.format(value)
    findings = GUARD.check_input(text).verdict.findings
    assert [(f.category, text[f.start : f.end]) for f in findings] == [(category, value)]


@pytest.mark.parametrize(
    "text",
    [
        "000-12-3456 and 666-12-3456 and 912-34-5678",
        "SSN format: 123-45-6789",
        "my NHS number is 9434765918",
        "9434765919 units",
        "part GB 12 34 56 C",
        "Steuer-ID 12345678901",
        "BSN 123456789",
        "DNI 12345678A",
        "PESEL 44051401358",
        "RSSMRA85T10A562T",
        "order AB1234567 shipped",
        "E12345678 型号",
        "护照怎么办理？需要3张照片",
        "passport renewal takes 6 weeks",
        "京东618大促",
        "沪A股今天涨了3%",
        "京ABCDEF",
        "京 A B C D E F",
        "新 A 1 2 3",
        "barcode 6901234567892",
        "条形码6901234567892",
        "扫一下6901234567892就知道价格",
        "EAN 4222222222222",
        "forgot my password, 2 tries left",
        "the password is required",
        "密码错误3次",
        "忘记密码iPhone13怎么解锁",
        "password 2FA-enabled accounts",
        "密码6-16位字符",
        'password = os.environ["DB_PASSWORD2"]',
        "token: process.env.GITHUB_TOKEN2",
        "password: ********",
        "my password is not working since 2023-01-01",
        "access token expired after 30 minutes",
        "skeleton-key-adventures-of-the-year-two",
        "https://example.com/products/shoes?color=red&size=42",
        "https://www.example.org/2024/05/some-long-article-title-about-nothing",
        "北京到上海高铁5小时",
        "走这条路3次了",
        "建国路很堵",
        "在路边等了30分钟",
        "a 5 Star Place to Stay",
        "3 days on the road",
        "2 cars per drive",
        "Take Route 66",
        "第3章第5号公告",
    ],
)
def test_what_only_looks_like_it_is_left_alone(text: str) -> None:
    assert GUARD.check_input(text).verdict.findings == ()


VALIDATED = [
    (made.cn_uscc, china.is_cn_uscc),
    (made.uk_nino, western.is_uk_nino),
    (made.uk_nhs, western.is_uk_nhs),
    (made.de_tax_id, western.is_de_tax_id),
    (made.fr_nir, western.is_fr_nir),
    (made.es_dni, western.is_es_dni),
    (made.nl_bsn, western.is_nl_bsn),
    (made.it_fiscal, western.is_it_fiscal),
    (made.pl_pesel, western.is_pl_pesel),
]


@pytest.mark.parametrize(("make", "is_valid"), VALIDATED)
def test_a_validator_takes_what_was_made_by_the_rule(make: Make, is_valid: Valid) -> None:
    rng = random.Random(11)
    assert all(is_valid(make(rng)) for _ in range(300))


@pytest.mark.parametrize(("make", "is_valid"), [row for row in VALIDATED if row[0] != made.uk_nino])
def test_a_changed_check_character_is_refused(make: Make, is_valid: Valid) -> None:
    rng = random.Random(12)
    for _ in range(100):
        value = make(rng)
        alphabet = "0123456789" if value[-1].isdigit() else "ABCDEFGHJK"
        wrong = next(char for char in alphabet if char != value[-1])
        assert not is_valid(value[:-1] + wrong)


@pytest.mark.parametrize(
    ("value", "is_valid"),
    [
        ("943" + "4765919", western.is_uk_nhs),  # the example of each rule's own publication
        ("86095742719", western.is_de_tax_id),
        ("44051401359", western.is_pl_pesel),
        ("12345678Z", western.is_es_dni),
        ("X1234567L", western.is_es_dni),
        ("111222333", western.is_nl_bsn),
        ("RSSMRA85T10A562S", western.is_it_fiscal),
    ],
)
def test_published_examples_pass(value: str, is_valid: Valid) -> None:
    assert is_valid(value)
