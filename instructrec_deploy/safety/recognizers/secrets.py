"""Secrets: keys and tokens of known makers, PEM blocks, JWTs, passwords that the text names.

URLs that carry a secret are here too: user:password@host, or a token in the query.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator

from instructrec_deploy.safety import reach
from instructrec_deploy.safety.match import Match, matches
from instructrec_deploy.safety.pending import Shape
from instructrec_deploy.safety.recognizers.nearby import has_any

# How keys begin, and what they go on with. Length and alphabet are what tells them from words.
_KEYS = re.compile(
    r"(?:"
    r"(?:AKIA|ASIA|AGPA|AIDA|AROA|ANPA)[0-9A-Z]{16}(?![0-9A-Za-z])"  # AWS
    r"|LTAI[0-9A-Za-z]{12,26}|AKID[0-9A-Za-z]{13,40}"  # Alibaba Cloud, Tencent Cloud
    r"|gh[pousr]_[0-9A-Za-z]{30,251}|github_pat_[0-9A-Za-z_]{22,251}|glpat-[0-9A-Za-z_\-]{20,64}"
    r"|xox[abeoprs]-[0-9A-Za-z\-]{10,250}|xapp-[0-9A-Za-z\-]{20,250}"  # Slack
    r"|sk-(?:proj-|ant-|svcacct-|or-)?[0-9A-Za-z_\-]{20,250}"  # model services
    r"|[srp]k_(?:live|test)_[0-9A-Za-z]{16,250}|whsec_[0-9A-Za-z]{24,100}"  # Stripe
    r"|AIza[0-9A-Za-z_\-]{35}|ya29\.[0-9A-Za-z_\-]{20,250}|GOCSPX-[0-9A-Za-z_\-]{20,64}"  # Google
    r"|SG\.[0-9A-Za-z_\-]{16,32}\.[0-9A-Za-z_\-]{16,64}|key-[0-9a-f]{32}|SK[0-9a-f]{32}"
    r"|npm_[0-9A-Za-z]{36}|pypi-[0-9A-Za-z_\-]{50,250}|hf_[0-9A-Za-z]{30,60}"
    r"|dop_v1_[0-9a-f]{64}|shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}|sq0[a-z]{3}-[0-9A-Za-z_\-]{22,43}"
    r"|[0-9]{8,10}:AA[0-9A-Za-z_\-]{33}"  # Telegram
    r"|eyJ[0-9A-Za-z_\-]{8,2000}\.eyJ[0-9A-Za-z_\-]{8,4000}(?:\.[0-9A-Za-z_\-]{0,2000})?"  # JWT
    r")"
)
_KEY_HEADS = (  # one of them stands in each key
    *("AKIA", "ASIA", "AGPA", "AIDA", "AROA", "ANPA", "LTAI", "AKID", "ghp_", "gho_", "ghu_"),
    *("ghs_", "ghr_", "github_pat_", "glpat-", "xox", "xapp-", "sk-", "k_live_", "k_test_"),
    *("whsec_", "AIza", "ya29.", "GOCSPX-", "SG.", "key-", "SK", "npm_", "pypi-", "hf_"),
    *("dop_v1_", "shp", "sq0", ":AA", "eyJ"),
)
# Where a word begins that is long enough to be a key.
_TOKEN = re.compile(
    r"(?:(?<![0-9A-Za-z_.:\-])[.:\-]{0,64}|(?<=[0-9A-Za-z_]:))(?=[0-9A-Za-z_][0-9A-Za-z_.:\-]{15})"
)
_TOKEN_CHARS = bytes(
    0x61 if re.match(r"[0-9A-Za-z_.:\-]", chr(code)) else 0x20 for code in range(256)
)
_LONG_TOKEN = b"a" * 16
_PEM = re.compile(r"-----BEGIN (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_PEM_END = re.compile(r"-----END (?:[A-Z0-9]{1,12} ){0,3}PRIVATE KEY(?: BLOCK)?-----")
_PEM_HEAD = Shape(_PEM)

# Words that name a secret; `in` on the lower-case text is the gate.
_NAMING = (
    *("pass", "pwd", "secret", "token", "api", "access", "auth", "bearer", "basic ", "private"),
    *("signing", "encryption", "credential"),
)
_NAMING_ZH = ("密", "口令", "令牌", "秘钥", "私钥")
_LINK = (
    r"(?P<link>['\"]? ?(?::=|=>|[:=]|(?<![a-z])(?:is|was|set to)(?![a-z])"
    r"|(?:还|就|都)?是|[设改]?[成为])|) ?[“‘「『]?"
)
_BARE_NAME = (
    r"(?:password|passwd|passphrase|passwort|pwd|pass(?=[:=])|secret|token|credentials?"
    r"|(?:api|access|secret|private|auth|encryption|signing)[_\- ]?(?:key|token|secret))"
)
_NAME_ZH = "(?:密码|口令|密钥|秘钥|令牌|私钥)(?:信息|明文)?"
_NAMED = re.compile(
    rf"(?:(?<![a-z])(?:(?:[a-z0-9]{{1,20}}[_\-]){{0,4}}{_BARE_NAME}"
    rf"(?:[_\-](?:key|id|value|hash)){{0,1}})|{_NAME_ZH}){_LINK}(?P<rest>)"
)
# The same for a text without a dash or an underscore, which takes half the time.
_NAMED_PLAIN = re.compile(rf"(?:(?<![a-z]){_BARE_NAME}|{_NAME_ZH}){_LINK}(?P<rest>)")
_LEET_PASSWORD = re.compile("p(?=[a-z]{0,6}[@$045])[a@4][s$5]{2}w[o0]?r?d")
_LEET = str.maketrans("@$045", "asoas")
_BEARER = re.compile(r"(?<![a-z])(?:bearer|basic) (?P<rest>)(?=[0-9a-z_.~+/\-]{16})")
_SECRET_CHARS = 200
_VALUE = re.compile(rf"[!-~]{{1,{_SECRET_CHARS}}}")  # printable, no space
_QUOTED = re.compile(rf"(?P<mark>['\"`])(?P<value>[^'\"`\n]{{4,{_SECRET_CHARS}}})(?P=mark)")
_QUOTES = "'\"`"
_TELLING = re.compile("[0-9A-Z]")  # every secret has one
# What stands where a secret would, and is none: words of the sentence, then what is filled in.
_SENTENCE_WORDS = """
null none true false required optional reset changed wrong incorrect invalid expired forgotten
missing empty unknown undefined string str env todo protected safe secure the a an not too very so
in on at to of for that this still no yes what only being never stored sent important hidden
"""
_NO_SECRET_WORDS = frozenset(_SENTENCE_WORDS.split())
_NO_SECRET = re.compile(
    r"(?:[*x•.\-_#]+|your[_\-a-z]*|my[_\-a-z]*|example[_\-a-z]*|[<\[{$%(].*"
    # code that fetches it
    r"|(?:os\.(?:environ|getenv)|process\.env|system\.getenv|getenv|env|config|settings|secrets?"
    r"|vault)[.\[(].*)"
)
_NO_SECRET_FIRST = frozenset("*x•.-_#yme<[{$%(opsgcv")  # what those begin with
_HAS_DIGIT = re.compile("[0-9]")
_MARKED = re.compile("[!@#$%^&*]")  # few words have one, most rules for passwords ask for one
_TURNS = re.compile("[0-9][A-Za-z]")
_KINDS = tuple(map(re.compile, ("[a-z]", "[A-Z]", "[^0-9A-Za-z]")))
_MIN_ENTROPY = 3.0  # bits a character: words stay below, random strings of 20 above
_RANDOM_CHARS = 20

_URL = re.compile(r"(?<![0-9A-Za-z])[A-Za-z][0-9A-Za-z+.\-]{1,20}://")
_URL_REST = re.compile(r"[!#-;=?-Z\[\]_a-z~%|]{1,2048}")
_USERINFO = re.compile(r"[^/@?#:\s]{0,80}:[^/@?#\s]{1,128}@")
_URL_SECRET = re.compile(
    r"[?&#;](?:[a-z0-9]{1,20}[_\-.]){0,3}(?:token|key|apikey|sig|signature|password|passwd|pwd"
    r"|secret|session|sessionid|sid|auth|jwt|code|otp|ticket|credential|invite|hash|email)=[^&#\s]{4}",
    re.IGNORECASE,
)
_URL_PART = re.compile(r"[/=]([0-9A-Za-z_\-]{20,})")

SECRET_SHAPES = (
    Shape(re.compile(rf"{_TOKEN.pattern}{_KEYS.pattern}")),
    *(
        Shape(re.compile(f"{named}(?:{_QUOTED.pattern}|{_VALUE.pattern})"), is_lower=True)
        for named in (_NAMED.pattern, _BEARER.pattern, _LEET_PASSWORD.pattern + _LINK)
    ),
)
URL_SHAPES = (Shape(re.compile(f"{_URL.pattern}{_URL_REST.pattern}")),)


def open_pem(text: str, start: int) -> int:
    """Where a private key begins that is not complete; the text's length where there is none."""
    done = start
    for head in _PEM.finditer(text, start):
        if head.start() < done:
            continue
        tail = _PEM_END.search(text, head.end(), head.end() + reach.PEM)
        if not tail and len(text) < head.end() + reach.PEM:
            return head.start()
        done = tail.end() if tail else head.end() + reach.PEM
    return _PEM_HEAD.first(text, start)


def find_secrets(text: str, lower: str) -> Iterator[Match]:
    """Keys, private keys, tokens and named passwords in a folded text."""
    if "-----BEGIN " in text:
        yield from _find_pem(text)
    kinds = text.encode("ascii", "replace").translate(_TOKEN_CHARS)
    if _LONG_TOKEN in kinds and has_any(_KEY_HEADS, text):
        for token in _TOKEN.finditer(text):
            key = _KEYS.match(text, token.end())
            if key and _looks_random(key[0][4:]):
                yield Match("SECRET", "known_key", key.start(), key.end())
    if has_any(_NAMING, lower) or (not text.isascii() and has_any(_NAMING_ZH, lower)):
        yield from _find_named(text, lower)
    plain = _LEET_PASSWORD.sub(lambda word: word[0].translate(_LEET), lower)
    if plain != lower:
        yield from _find_named(text, plain)


def find_urls(text: str, lower: str) -> Iterator[Match]:
    """URLs that carry a password, a token or an address; other URLs are no personal data."""
    done = 0
    for head in _URL.finditer(text):
        if head.start() < done:  # within the one before: each character is read once
            continue
        rest = _URL_REST.match(text, head.end())
        if not rest:
            continue
        value = rest[0].rstrip(".,;:!?)]'")
        done = rest.end()
        if _USERINFO.match(value) or _URL_SECRET.search(value) or _has_token(value):
            yield Match("URL", "url_with_secret", head.start(), head.end() + len(value))


def entropy(value: str) -> float:
    """Shannon entropy of a value's characters, in bits a character."""
    total = len(value)
    return -sum(n / total * math.log2(n / total) for n in Counter(value).values())


def _find_pem(text: str) -> Iterator[Match]:
    done = 0
    for head in _PEM.finditer(text):
        if head.start() < done:
            continue
        tail = _PEM_END.search(text, head.end(), head.end() + reach.PEM)
        done = tail.end() if tail else min(len(text), head.end() + reach.PEM)
        yield Match("SECRET", "private_key", head.start(), done)


def _find_named(text: str, lower: str) -> Iterator[Match]:
    named = _NAMED if "_" in lower or "-" in lower else _NAMED_PLAIN
    spans = []
    has_bearer = "bearer " in lower or "basic " in lower
    for pattern in (named, _BEARER) if has_bearer else (named,):
        telling = -1  # the next character that no plain word has
        for found in pattern.finditer(lower):
            start = found.end()
            if telling < start:  # looked for once, however many words name the same value
                sign = _TELLING.search(text, start)
                telling = sign.start() if sign else len(text)
            if telling > start + _SECRET_CHARS:  # one more: a quotation mark
                continue
            span = _secret_at(text, start, has_link=pattern is _BEARER or bool(found["link"]))
            if span:
                spans.append(span)
    yield from matches("SECRET", "named_secret", spans)


def _secret_at(text: str, start: int, *, has_link: bool) -> tuple[int, int] | None:
    """The span of the secret that begins here; None where it is a word of the sentence."""
    quoted = _QUOTED.match(text, start) if text[start : start + 1] in _QUOTES else None
    if quoted:
        begin, end = quoted.span("value")
        found = text[begin:end]
    else:
        value = _VALUE.match(text, start)
        if not value:
            return None
        found = value[0].rstrip(".,;!?)]}'\"`")
        begin, end = start, start + len(found)
    if len(found) < 6 or _is_no_secret(found):
        return None
    is_likely = _is_likely(found) if has_link else _is_unlike_words(found)
    return (begin, end) if is_likely or _is_random(found) else None


def _is_no_secret(value: str) -> bool:
    lower = value.lower()
    if lower in _NO_SECRET_WORDS:
        return True
    return lower[0] in _NO_SECRET_FIRST and _NO_SECRET.fullmatch(lower) is not None


def _is_likely(value: str) -> bool:
    """Whether it is no plain word, where the text says what it is."""
    has_digit = _HAS_DIGIT.search(value) is not None
    if value.isascii():
        has_small, has_capital = value != value.upper(), value != value.lower()
        n_kinds = has_digit + has_small + has_capital + (not value.isalnum())
    else:
        n_kinds = has_digit + sum([kind.search(value) is not None for kind in _KINDS])
    return n_kinds >= (2 if has_digit else 3)


def _is_unlike_words(value: str) -> bool:
    """Whether it is neither a word nor a name with a number: "Qp9y6i5v", not "iPhone13"."""
    if not _HAS_DIGIT.search(value) or value != value.strip("/\\"):
        return False
    has_letters = value.upper() != value.lower()
    return has_letters and (bool(_MARKED.search(value)) or len(_TURNS.findall(value)) >= 2)


def _is_random(value: str) -> bool:
    is_long = len(value) >= _RANDOM_CHARS and _HAS_DIGIT.search(value) is not None
    return is_long and _looks_random(value)


def _looks_random(value: str) -> bool:
    return entropy(value) >= _MIN_ENTROPY and len(set(value)) >= 8


def _has_token(url: str) -> bool:
    """Whether a part of the path or a value is a long random string with digits and letters."""
    for part in _URL_PART.finditer(url):
        value = part[1]
        n_digits = sum(char.isdecimal() for char in value)
        is_mixed = n_digits >= 3 and n_digits < len(value) and "-" not in value.strip("-")
        if is_mixed and entropy(value) >= 3.5:  # hex of 32 has 3.6 to 4.0
            return True
    return False
