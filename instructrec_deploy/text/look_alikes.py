"""Letters of other scripts that look like Latin ones, and Latin letters with marks.

Curated after Unicode's confusables (UTS 39): the letters that a common font draws like a Latin
letter. A word is read as Latin only where all of it looks so: "рaypаl" is, "привет" is not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

# A Latin letter and behind it what looks like it: Cyrillic, Greek, Armenian, Cherokee, Lisu.
_LOOKS = (
    "aаɑα bЬƄ cсϲⲥᴄ dԁɗ eеҽє fƒքẝ gɡցƍ hһհ iіιıɩɪӏ jјϳ kкκ lⅼǀ mм "
    "nոռηп oоοσօᴏø pрρϱ qԛգզ rгᴦ sѕꜱƽ tтτ uυսᴜʋц vνѵᴠ wѡԝաᴡω xхχ "
    "yуүγʏ zᴢʐ AАΑᎪꓮ BВΒᏴꓐ CСϹᏟꓚ DᎠꓓĐ EЕΕᎬꓰ FϜꓝ GԌᏀꓖ HНΗᎻꓧ IІΙӀꓲ "
    "JЈᎫꓙ KКΚᏦꓗ LᏞꓡŁ MМΜᎷꓟ NΝꓠ OОΟՕꓳØ PРΡᏢꓑ RᎡᏒꓣ SЅՏᏚꓢ TТΤᎢꓔ UՍꓴ "
    "VѴᏙꓦ WԜᎳꓪ XХΧꓫ YУΥҮꓬ ZΖᏃꓜ "
)
_TABLE = {look: pair[0] for pair in _LOOKS.split() for look in pair[1:]}
# Small capitals, letters in filled circles and squares, flags' letters, and digits in circles.
_TABLE |= dict(zip("ʙᴅᴇꜰɢʜᴊᴋʟᴍɴᴘʀᴛłđħŧæ", "bdefghjklmnprtldhta", strict=True))
for _start in (0x1F150, 0x1F170, 0x1F1E6):
    _TABLE |= {chr(_start + i): chr(ord("A") + i) for i in range(26)}
for _start in (0x2776, 0x2780, 0x278A):
    _TABLE |= {chr(_start + i): str(1 + i) for i in range(9)}
# Latin letters with marks, by their decomposition.
for _char in map(chr, (*range(0xC0, 0x250), *range(0x1E00, 0x1F00))):
    _base = unicodedata.normalize("NFD", _char)[0]
    if "A" <= _base <= "z" and _char not in _TABLE:
        _TABLE[_char] = _base
# Letters of those scripts: one that is in no pair keeps its word as it is.
_LETTERS = "\u00aa-\u024f\u0250-\u02af\u0370-\u058f\u13a0-\u13ff\u1d00-\u1dbf\u1e00-\u1fff"
_LETTERS += "\u2c80-\u2cff\ua4d0-\ua4f7\ua730-\ua7ff\u2776-\u2792\U0001f150-\U0001f1ff"
_ANY = re.compile(f"[{_LETTERS}]")
_WORD = re.compile(f"[0-9A-Za-z{_LETTERS}]+")
# A word with such a letter; begins where a word does, so that each character is read once.
_MIXED_WORD = re.compile(f"(?<![0-9A-Za-z])[0-9A-Za-z]*[{_LETTERS}][0-9A-Za-z{_LETTERS}]*")
_FEW = 16  # kinds of characters to replace one by one


def may_look_latin(text: str) -> bool:
    """Whether the text has a letter of those scripts."""
    return _ANY.search(text) is not None


def read_as_latin(text: str) -> str:
    """The text, of the same length, with words that look Latin throughout spelled in ASCII."""
    letters = set(_ANY.findall(text))
    latin = mapped(text, {char: _TABLE[char] for char in letters & _TABLE.keys()})
    if latin == text or letters <= _TABLE.keys():
        return latin
    return _MIXED_WORD.sub(
        lambda word: latin[slice(*word.span())] if _is_latin(word, latin) else word[0], text
    )


def mapped(text: str, table: Mapping[str, str]) -> str:
    """The text with characters put in place of others; no new one may be an old one of the table.

    Where few different characters change, each is replaced by itself: `translate` looks up every
    character of the text, which takes a hundred times as long.
    """
    if len(table) > _FEW:
        return text.translate({ord(char): new for char, new in table.items()})
    for char, new in table.items():
        text = text.replace(char, new)
    return text


def word_start(text: str, end: int) -> int:
    """Where the word begins that [end - 1] of a folded text is in; `end` where it is in none."""
    while end and _WORD.match(text[end - 1]):
        end -= 1
    return end


def _is_latin(word: re.Match[str], latin: str) -> bool:
    return latin[word.start() : word.end()].isascii()
