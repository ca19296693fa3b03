"""E-mail and IP addresses."""

from __future__ import annotations

import re
from collections.abc import Iterator

from instructrec_deploy.safety import reach
from instructrec_deploy.safety.match import Match, matches, scan
from instructrec_deploy.safety.pending import Shape

# --- e-mail

_LOCAL_CHARS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._%+-'&" + "".join(
    chr(code)
    for code in range(0xC0, 0x250)  # Latin letters with accents
)
_DOMAIN = re.compile(
    r"(?:[0-9A-Za-z][0-9A-Za-z-]{0,62}(?<!-)\.){1,8}([A-Za-z]{2,24})(?![0-9A-Za-z])"
)
_NO_FIRST = ".'&-%+"  # of a local part
_LOCAL = re.escape(_LOCAL_CHARS)
_FIRST = re.escape("".join(char for char in _LOCAL_CHARS if char not in _NO_FIRST))
# Where it may start: behind what else may stand there, or behind a ruled line of them.
_START = f"(?:(?<![{_LOCAL}])[{re.escape(_NO_FIRST)}]*+|(?<=[{re.escape(_NO_FIRST)}]{{8}}))"
# All that may stand before an "@", and the domain behind it; the walk does not go past the "@".
_ADDRESS = re.compile(
    f"{_START}([{_FIRST}][{_LOCAL}]{{0,{reach.MAIL_NAME - 2}}})@(?=({_DOMAIN.pattern}))"
)
_MASKING = "*•]"  # right before what is left of a masked address
_FILE_SUFFIXES = frozenset(
    ("png", "jpg", "jpeg", "gif", "svg", "webp", "ico", "css", "js", "ts", "json", "pdf", "zip")
)

EMAIL_SHAPES = (Shape(re.compile(f"[{_LOCAL}]{{1,{reach.MAIL_NAME}}}@{_DOMAIN.pattern}")),)


def find_emails(text: str, lower: str) -> list[Match]:
    """E-mail addresses; neither of an address's two parts crosses another "@".

    One function, as a hostile text has thousands: a call for each would cost a quarter more.
    """
    spans = []
    for found in _ADDRESS.finditer(text):
        local, _, last = found.groups()
        if last.lower() in _FILE_SUFFIXES or local[-1] == ".":
            continue
        start, end = found.start(1), found.end(2)
        if start and text[start - 1] in _MASKING:
            continue
        first = local[0]
        if first in "xX" and not local.strip("xX"):
            continue
        if first == "g" and local == "git" and text.startswith("git@git", start):  # a repository
            continue
        spans.append((start, end))
    return matches("EMAIL", "email", spans)


# --- IP addresses

_OCTET = r"(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_REST = rf"\.({_OCTET})\.({_OCTET})\.({_OCTET})(?!\.?[0-9A-Za-z])"
# Its first digit, then what must stand before it and begin with it. 8.8.8.8 is a section's number.
_IPV4 = re.compile(
    r"[0-9](?<![0-9A-Za-z.\-].)(?!\.[0-9]\.[0-9]\.[0-9](?!\.?[0-9A-Za-z]))"
    rf"(?<=(?=({_OCTET})\.).)[0-9]{{0,2}}{_REST}"
)
_IPV6 = re.compile(r"(?<![0-9A-Za-z:.])[23][0-9A-Fa-f]{3}:[0-9A-Fa-f:]{2,34}(?![0-9A-Za-z:])")
_VERSION_BEFORE = re.compile(
    r"(?:ver(?:sion)?|(?<![a-z])v\.|release|build|firmware|版本号?|固件|驱动|补丁|客户端)[^0-9]{0,4}\Z",
    re.I,
)

IP_SHAPES = (Shape(re.compile(rf"(?<![0-9A-Za-z.\-]){_OCTET}{_REST}")), Shape(_IPV6))


def find_ips(text: str, lower: str) -> Iterator[Match]:
    """Public IP addresses. Private, loopback and documentation ranges are not personal data."""
    for found in scan(_IPV4, text, _accept_ipv4):
        yield Match("IP", "ipv4", found.start(), found.end())
    for found in scan(_IPV6, text, _accept_ipv6):
        yield Match("IP", "ipv6", found.start(), found.end())


def _accept_ipv4(found: re.Match[str]) -> bool:
    a, b, c, _ = map(int, found.groups())
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
