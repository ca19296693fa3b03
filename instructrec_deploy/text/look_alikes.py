"""Letters of other scripts that look like Latin ones, and Latin letters with marks.

Curated after Unicode's confusables (UTS 39): the letters that a common font draws like a Latin
letter. A word is read as Latin only where all of it looks so: "рaypаl" is, "привет" is not.
"""

from __future__ import annotations

import re
import unicodedata

# A Latin letter and behind it what looks like it: Cyrillic, Greek, Armenian, Cherokee, Lisu.
_LOOKS = (
    "aаɑα bЬƄ cсϲⲥᴄ dԁɗ eеҽє fƒքẝ gɡցƍ hһհ iіιıɩɪӏ jјϳ kкκ lⅼǀ mм "
    "nոռηп oоοσօᴏø pрρϱ qԛգզ rгᴦ sѕꜱƽ tтτ uυսᴜʋц vνѵᴠ wѡԝաᴡω xхχ "
    "yуүγʏ zᴢʐ AАΑᎪꓮ BВΒᏴꓐ CСϹᏟꓚ DᎠꓓĐ EЕΕᎬꓰ FϜꓝ GԌᏀꓖ HНΗᎻꓧ IІΙӀꓲ "
    "JЈᎫꓙ KКΚᏦꓗ LᏞꓡŁ MМΜᎷꓟ NΝꓠ OОΟՕꓳØ PРΡᏢꓑ RᎡᏒꓣ SЅՏᏚꓢ TТΤᎢꓔ UՍꓴ "
    "VѴᏙꓦ WԜᎳꓪ XХΧꓫ YУΥҮꓬ ZΖᏃꓜ "
)
_TABLE = {ord(look): ord(pair[0]) for pair in _LOOKS.split() for look in pair[1:]}
# Small capitals, letters in filled circles and squares, flags' letters, and digits in circles.
_TABLE |= dict(zip(map(ord, "ʙᴅᴇꜰɢʜᴊᴋʟᴍɴᴘʀᴛłđħŧæ"), map(ord, "bdefghjklmnprtldhta"), strict=True))
for _start in (0x1F150, 0x1F170, 0x1F1E6):
    _TABLE |= {_start + i: ord("A") + i for i in range(26)}
for _start in (0x2776, 0x2780, 0x278A):
    _TABLE |= {_start + i: ord("1") + i for i in range(9)}
# Latin letters with marks, by their decomposition.
for _code in (*range(0xC0, 0x250), *range(0x1E00, 0x1F00)):
    _base = unicodedata.normalize("NFD", chr(_code))[0]
    if "A" <= _base <= "z" and _code not in _TABLE:
        _TABLE[_code] = ord(_base)
# Letters of those scripts: one that is in no pair keeps its word as it is.
_LETTERS = "\u00aa-\u024f\u0250-\u02af\u0370-\u058f\u13a0-\u13ff\u1d00-\u1dbf\u1e00-\u1fff"
_LETTERS += "\u2c80-\u2cff\ua4d0-\ua4f7\ua730-\ua7ff\u2776-\u2792\U0001f150-\U0001f1ff"
_ANY = re.compile(f"[{_LETTERS}]")
_WORD = re.compile(f"[0-9A-Za-z{_LETTERS}]+")
# A word with such a letter; begins where a word does, so that each character is read once.
_MIXED_WORD = re.compile(f"(?<![0-9A-Za-z])[0-9A-Za-z]*[{_LETTERS}][0-9A-Za-z{_LETTERS}]*")


def read_as_latin(text: str) -> str:
    """The text, of the same length, with words that look Latin throughout spelled in ASCII."""
    if not _ANY.search(text):
        return text
    latin = text.translate(_TABLE)
    if latin == text or not _ANY.search(latin):
        return latin
    return _MIXED_WORD.sub(
        lambda word: latin[slice(*word.span())] if _is_latin(word, latin) else word[0], text
    )


def word_start(text: str, end: int) -> int:
    """Where the word begins that [end - 1] of a folded text is in; `end` where it is in none."""
    while end and _WORD.match(text[end - 1]):
        end -= 1
    return end


def _is_latin(word: re.Match[str], latin: str) -> bool:
    return latin[word.start() : word.end()].isascii()
