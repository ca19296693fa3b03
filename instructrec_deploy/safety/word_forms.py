"""Words that may be disguised: which parts of a text to score, and the letters that they stand for.

Latin: a word with whatever marks it holds (f.u.c.k, sh1t, fvck). Chinese: characters in a row that
sound like those of abuse (煞笔, 曹尼玛), letters among them (傻b). Linear in the text's length.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from instructrec_deploy.safety.pending import Shape

MAX_CHARS = 24  # a longer run of characters is no word

# Characters by their sound: those of abusive words, what stands in for them, and common others.
_SOUNDS = """
sha 傻煞沙莎啥杀纱鲨砂刹 bi 逼比笔币必毕碧闭壁鼻屄鄙彼毙避蓖 cao 操草曹糙槽艹肏漕嘈
ni 你尼泥拟妮腻倪呢 ma 妈马玛码麻吗嘛骂蚂 ta 他她它塌踏 de 的得地 gou 狗苟勾沟够 ri 日
wang 王忘亡网旺 ba 八巴吧爸霸拔 dan 蛋旦淡但弹 biao 婊表彪标裱 zi 子紫字籽 jian 贱剑件见贝键
ren 人仁认忍任 qu 去取趣屈曲 si 死四丝思斯 bai 白百摆败 chi 痴吃迟池持 nao 脑闹恼 can 残惨参蚕
fei 废飞肥费非 wu 物误务无 la 垃拉辣啦 ji 圾机鸡级及 zhi 智之支志只 zhang 障张丈章账
za 杂砸咋 zhong 种中重钟 gun 滚棍 chun 蠢春纯唇 huo 货火祸获 dong 东冬洞 xi 西吸希
sao 骚扫搔嫂 quan 全拳权圈 jia 家加佳假 chu 畜出初处 sheng 生升声胜 zha 渣扎炸 wo 我卧窝握
diao 屌吊掉叼 gui 鬼贵归 sun 孙损 zhu 猪主住朱 hei 黑嘿
"""
# Words that disguises are made of. Written plainly they are left to the word list.
_PLAIN_HAN = """
傻逼 操你妈 草泥马 妈逼 装逼 尼玛 狗日的 王八蛋 婊子 贱人 白痴 脑残 智障 杂种 蠢货 蠢猪 畜生 卧槽
我操 狗东西 骚货 傻屌 黑鬼 龟孙 去你妈 贱货 蠢种
"""
PLAIN_HAN = frozenset(_PLAIN_HAN.split())
_SOUND_OF: dict[str, str] = {}
for _word in _SOUNDS.split():
    if _word.isascii():
        _sound = _word
    else:
        _SOUND_OF |= dict.fromkeys(_word, _sound)
_HAN = "\u4e00-\u9fff"
_MARK = r"[ .,\-_*~·•|/\\+#@&'\":;^`!?=]"
_BORDER = rf"\s{_HAN}，。！？、；：“”‘’（）《》【】…"
_WORD = re.compile(rf"[^{_BORDER}]+")
# Characters of the table, and letters that stand alone.
_UNIT = rf"(?:[{''.join(_SOUND_OF)}]|(?<![a-z])[a-z](?![a-z]))"
_UNITS = re.compile(_UNIT)
_BETWEEN = " .,-_*~·•|/\\+#@&'\":;^`!?="  # the marks; two of them at most between two units
_HAS_SOUND = re.compile(f"[{''.join(_SOUND_OF)}]")
_LETTER = re.compile("[a-z]")
_OUTER = ".,;:!?\"'()[]{}<>-_*~`"
_LOOKS = str.maketrans("0134578@$€!|+(¢£µ", "oieastbaseiltcclu")
_NO_LETTER = re.compile("[^a-z]+")
_AGAIN = re.compile(r"([a-z])\1+")
# What more text could turn into one.
WORD_SHAPES = (
    Shape(re.compile(rf"(?<![^{_BORDER}])[^{_BORDER}]{{1,{MAX_CHARS + 1}}}"), 1),
    Shape(re.compile(rf"{_UNIT}(?:{_MARK}{{0,2}}{_UNIT}){{1,2}}"), 1),
)


class Candidate(NamedTuple):
    """A part of a text to score: [start, end), as written and as the letters it stands for."""

    start: int
    end: int
    raw: str
    letters: str
    is_han: bool


def candidates(lower: str, is_known: Callable[[str], bool] | None = None) -> list[Candidate]:
    """The words of a folded text in lower case that could be disguised.

    `is_known`: of words, as written, that need no look.
    """
    found = []
    skips = is_known or PLAIN_HAN.__contains__
    for word in _WORD.finditer(lower):
        start, end = word.span()
        if end - start > MAX_CHARS:
            continue
        whole = word[0]
        raw = whole.strip(_OUTER)
        if len(raw) < 3 or skips(raw) or not _LETTER.search(raw):
            continue
        start += whole.index(raw)
        found.append(Candidate(start, start + len(raw), raw, letters_of(raw), is_han=False))
    if not lower.isascii() and _HAS_SOUND.search(lower):
        for start, end, raw in _han_windows(lower):
            if not skips(raw):
                found.append(Candidate(start, end, raw, sounds_of(raw), is_han=True))
    return found


def _han_windows(lower: str) -> Iterator[tuple[int, int, str]]:
    """Two and three characters in a row whose sounds are known, one of them Chinese at least."""
    places = [unit.start() for unit in _UNITS.finditer(lower)]
    for index, start in enumerate(places):
        raw, last = lower[start], start
        for place in places[index + 1 : index + 3]:
            if place - last > 3 or lower[last + 1 : place].strip(_BETWEEN):
                break
            raw, last = raw + lower[place], place
            if not raw.isascii():
                yield start, last + 1, raw


def letters_of(word: str) -> str:
    """A Latin word with look-alikes read as letters, without marks and repetitions."""
    return _AGAIN.sub(r"\1", _NO_LETTER.sub("", word.translate(_LOOKS)))


def sounds_of(word: str) -> str:
    """The syllables of Chinese characters; letters stay."""
    return "".join(_SOUND_OF.get(char, char) for char in word)


def homophones(char: str) -> str:
    """Characters of the table that sound like this one, itself among them; "" if unknown."""
    sound = _SOUND_OF.get(char)
    return "".join(c for c, s in _SOUND_OF.items() if s == sound) if sound else ""
