"""Street addresses by rules: Chinese (road or estate with a number), English (number and street).

Towns and countries alone are no address. Names of places are the entity reader's work.
"""

from __future__ import annotations

import itertools
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from instructrec_deploy.safety import reach
from instructrec_deploy.safety.match import Match, matches
from instructrec_deploy.safety.pending import Shape

# --- Chinese

_NUMBER = r"(?:[0-9]{1,5}|[一二三四五六七八九十百]{1,5}|[甲乙丙丁])"
# Where a road's or an estate's name ends and its number begins.
_CORE = re.compile(
    rf"(?:大道|路|街|巷|弄|胡同|里|村|小区|花园|社区|苑|园|城|庄|寓|厦|广场|中心|组|屯|道|段|径|坊|区|湾|府|邨|馆)"
    rf"[东南西北中]?{_NUMBER}(?:[-之]{_NUMBER})?(?:号楼|号院|号|弄|栋|幢|座|楼|室|期|单元)"
)
# Further parts behind it: 3号楼2单元501室, A座12层1203, 旁边.
_TAIL = re.compile(
    r"(?:[ ,，]?(?:[一-龥]{0,8}?(?:大厦|小区|花园|广场|中心|公寓|大楼|家园|新村|宿舍|校区))?"
    r"[ ]?(?:第?[0-9A-Za-z一二三四五六七八九十甲乙丙丁]{1,5}(?:-[0-9A-Za-z]{1,5}){0,3}"
    r"(?:号楼|号院|号|栋|幢|座|单元|楼|层|室|户|门|弄|期|梯)|[0-9]{3,4}(?![0-9年月日元块个人点岁号])))"
)
# What cannot be part of the name of a place: the sentence around it.
_STOP_CHARS = "在是到住址于往我你他她您从寄送至给叫跟的了为即去"
_REGIONS = (
    "北京|上海|天津|重庆|河北|山西|辽宁|吉林|黑龙江|江苏|浙江|安徽|福建|江西|山东|河南|湖北|湖南|广东|海南"
    "|四川|贵州|云南|陕西|甘肃|青海|台湾|内蒙古|广西|西藏|宁夏|新疆|香港|澳门"
    "|广州|深圳|杭州|南京|苏州|成都|武汉|西安|长沙|郑州|青岛|大连|宁波|厦门|济南|沈阳|昆明|合肥|福州|哈尔滨"
    "|无锡|佛山|东莞|石家庄|南昌|南宁|贵阳|兰州|太原|长春|海口|乌鲁木齐|珠海|温州|常州|徐州|烟台"
)
# At each place, also within another: 海南京. The first character, then the rest behind it.
_ANY_REGION = re.compile(
    f"[{''.join({name[0] for name in _REGIONS.split('|')})}](?<=(?=({_REGIONS})).)"
)
_LEVEL = re.compile(r"[省市区县镇乡旗州]")
_HAS_DIGIT = re.compile("[0-9]")
_BARE_CHARS = 8  # without a region in it: the name of a road or an estate
_MAX_TAILS = 6
_PLACE = "".join(  # a character of a name: ranges between those that are none
    f"{chr(after + 1)}-{chr(before - 1)}"
    for after, before in itertools.pairwise([0x4DFF, *sorted(map(ord, _STOP_CHARS)), 0x9FA6])
    if before - after > 1
)
_NAME = re.compile(f"[{_PLACE}]+")
CN_ADDRESS_SHAPES = (
    Shape(
        re.compile(
            f"[{_PLACE}]{{1,{reach.PLACE_NAME}}}{_CORE.pattern}(?:{_TAIL.pattern}){{0,{_MAX_TAILS}}}"
        )
    ),
)


def find_cn_addresses(text: str, lower: str) -> Iterator[Match]:
    """Chinese addresses down to the number of a house, or of a building and flat."""
    places: _Places | None = None
    spans = []
    done = 0
    for core in _CORE.finditer(text):
        at, end = core.span()
        if at <= done and done:
            continue
        places = places or _Places(text)
        start = places.address_start(max(done, at - reach.PLACE_NAME), at)
        if start == at:  # nothing names the road: "3号路5号"
            continue
        if not _HAS_DIGIT.search(text, at, end) and not places.have_name(start, at):
            continue  # 购物中心三楼
        for _ in range(_MAX_TAILS):
            tail = _TAIL.match(text, end)
            if not tail:
                break
            end = tail.end()
        done = end
        spans.append((start, end))
    yield from matches("ADDRESS", "cn_address", spans)


class _Places:
    """Where a text has names of regions and levels (省, 市, 区), and stretches that may be names.

    Looked for once: a hostile text has thousands of roads, each with the same words before it.
    """

    def __init__(self, text: str) -> None:
        self._stretches = [found.start() for found in _NAME.finditer(text)]
        self._stretch_ends = [found.end() for found in _NAME.finditer(text)]
        self._regions = [found.start() for found in _ANY_REGION.finditer(text)]
        self._region_ends = [found.end(1) for found in _ANY_REGION.finditer(text)]
        self._levels = [found.start() for found in _LEVEL.finditer(text)]

    def address_start(self, floor: int, core: int) -> int:
        """Where the address begins that has its road's last character at `core`."""
        index = bisect_right(self._stretches, core - 1) - 1
        if index < 0 or self._stretch_ends[index] < core:
            return core
        begin = max(self._stretches[index], floor)
        if core - begin < 2:  # too short for a region or a level
            return begin
        region = self._region(begin, core)
        if region >= 0:
            return region
        level = self._level(begin, core)
        if level > begin:
            return max(begin, level - 4)
        return max(begin, core - _BARE_CHARS)

    def have_name(self, start: int, end: int) -> bool:
        """Whether the name of a region or a level stands in [start, end)."""
        return self._level(start, end) >= 0 or self._region(start, end) >= 0

    def _region(self, start: int, end: int) -> int:
        """Where the first name of a region begins in [start, end); -1 where none does."""
        starts, ends = self._regions, self._region_ends
        if not starts or starts[-1] < start:
            return -1
        for at in range(bisect_left(starts, start), len(starts)):
            if ends[at] <= end:
                return starts[at]
            if starts[at] >= end:
                break
        return -1

    def _level(self, start: int, end: int) -> int:
        """Where the first level stands in [start, end); -1 where none does."""
        levels = self._levels
        if not levels or levels[-1] < start:
            return -1
        level = levels[bisect_left(levels, start)]
        return level if level < end else -1


# --- English

_STREET = (
    r"Street|St|Avenue|Ave|Av|Road|Rd|Boulevard|Blvd|Lane|Ln|Drive|Dr|Court|Ct|Place|Pl|Square|Sq"
    r"|Terrace|Ter|Way|Parkway|Pkwy|Highway|Hwy|Circle|Cir|Close|Crescent|Cres|Gardens|Mews|Row"
    r"|Trail|Trl|Alley|Plaza|Grove|Hill|Quay|Walk|Route|Loop|Cove|Crossing|Point|Ridge|Wharf"
)
_US_STATE = (
    r"A[KLRZ]|C[AOT]|D[CE]|FL|GA|HI|I[ADLN]|K[SY]|LA|M[ADEINOST]|N[CDEHJMVY]|O[HKR]|PA|RI|S[CD]"
    r"|T[NX]|UT|V[AT]|W[AIVY]"
)
_UNIT = (
    r"(?:Apt|Apartment|Suite|Ste|Unit|Floor|Flat|Room|Rm|Bldg|Building|#)\.? ?#?[0-9A-Za-z\-]{1,6}"
)
_TOWN = r"(?:St\.? )?[A-Z][A-Za-z'\-]{1,20}(?: [A-Z][A-Za-z'\-]{1,20}){0,2}"
_UK_POSTCODE = r"[A-Z]{1,2}[0-9][0-9A-Z]? ?[0-9][A-Z]{2}"
_EN_HEAD = re.compile(
    r"(?<![0-9A-Za-z.,/:$£€#\-])(?:(?:Flat|Unit|Apt\.?) [0-9A-Za-z]{1,4},? )?"
    r"[0-9]{1,6}[A-Za-z]?(?:[-/][0-9]{1,5})?,? (?:(?:[NSEW]|North|South|East|West|Old|New)\.? )?"
    r"(?!(?:Star|Minute|Hour|Day|Week|Month|Year|Mile|Step|Point|Way)s? )"
    rf"(?:(?:[A-Z][A-Za-z'\-]{{0,20}}\.?|[0-9]{{1,3}}(?:st|nd|rd|th)) ){{1,4}}?(?:{_STREET})"
    r"(?![A-Za-z])\.?(?: (?:[NSEW]|NE|NW|SE|SW|North|South|East|West)(?![A-Za-z]))?"
)
_EN_TAIL = re.compile(
    rf"(?:(?:,|\n|, ?\n)? ?{_UNIT}(?![0-9A-Za-z]))?"
    rf"(?:(?:,? ?\n|, ){_TOWN}(?=[ ,\n.]|\Z))?(?:,? (?:{_US_STATE})(?![A-Za-z]))?"
    rf"(?:,? (?:[0-9]{{5}}(?:-[0-9]{{4}})?(?![0-9])|{_UK_POSTCODE}(?![0-9A-Za-z])))?"
)
_CAPITAL = re.compile("[A-Z]")
_PO_BOX = re.compile(
    r"(?<![A-Za-z])(?:P\.? ?O\.? ?Box|Post Office Box) #?[0-9]{1,7}(?![0-9])", re.I
)

EN_ADDRESS_SHAPES = (
    Shape(re.compile(_EN_HEAD.pattern + _EN_TAIL.pattern)),
    Shape(re.compile(_PO_BOX.pattern + _EN_TAIL.pattern, re.I)),
)


def find_en_addresses(text: str, lower: str) -> Iterator[Match]:
    """Street addresses of the English form: number, name, kind of street; then flat, town, code."""
    if "box" in lower:
        for box in _PO_BOX.finditer(text):
            tail = _EN_TAIL.match(text, box.end())
            yield Match("ADDRESS", "po_box", box.start(), tail.end() if tail else box.end())
    if not _CAPITAL.search(text):
        return
    spans = []
    for head in _EN_HEAD.finditer(text):
        start, end = head.span()
        tail = _EN_TAIL.match(text, end)
        spans.append((start, tail.end() if tail else end))
    yield from matches("ADDRESS", "en_address", spans)


def find_addresses(text: str, lower: str) -> Iterator[Match]:
    """Addresses of both languages."""
    if not text.isascii():
        yield from find_cn_addresses(text, lower)
    yield from find_en_addresses(text, lower)
