"""Accounts of messengers (WeChat, QQ) that the text names, also by the words that hide the name.

微信, 薇信, V信, vx, 加微, plus V, 扣扣, ...: what stands behind such a word is an account where it
looks like one: a number, or a word with a digit in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from instructrec_deploy.safety.match import Match
from instructrec_deploy.safety.pending import Shape
from instructrec_deploy.safety.recognizers.nearby import has_any

# In lower case. A latin name begins where a latin word does.
_W = "(?<![a-z0-9])"
_WEI = "微薇威徽维葳"
_WECHAT = (
    rf"(?:[{_WEI}][信❤♥芯x]|{_W}(?:v信|v ?[❤♥]|vx|wx|we ?chat|wei ?xin)(?![a-z])|卫星(?=号)"
    rf"|(?:[+➕加家嘉佳伽]|{_W}plus) ?(?:我|个|下)? ?"
    rf"(?:[{_WEI}](?:[信❤]|x(?![a-z]))?|(?:vx?|wx|wei)(?![a-z])))"
)
_QQ = rf"(?:{_W}qq|{_W}q(?=号)|[加我私]q(?![a-z])|扣扣|扣号|叩叩|蔻蔻|球球|秋秋|企鹅(?=号|:))"
_LINK = r"(?: ?(?:号码?|账号|帐号|id(?![a-z])|number|no\.|is(?![a-z])|是|为|[:=~>→👉])){0,4} {0,2}"
# Behind a number: what it counts, so that it is no account.
_NO_UNIT = (
    r"(?![0-9a-z@]|[.,][0-9]| ?(?:[元块万亿人个次步年月日天只首条件位级关版型克米%]|公里|毫克"
    r"|(?:kg|km|members?|times|messages?|users?|people|engines?)(?![a-z])))"
)
_CHAT = re.compile(
    rf"(?:{_WECHAT}|{_QQ}){_LINK}(?:(?P<number>[1-9](?:[ \-]?[0-9]){{4,10}}){_NO_UNIT}"
    r"|(?P<id>[a-z][a-z0-9_\-]{5,19})(?![a-z0-9_\-@.]))"
)
_NAMED = re.compile("号|账|帐|id")
_HAS_DIGIT = re.compile("[0-9]")
_LATIN_STEMS = ("qq", "vx", "wx", "wechat", "we chat", "weixin", "wei xin", "plus", "+")
_OTHER_STEM = re.compile(f"[qvw{_WEI}卫扣叩蔻球秋企]")
_SURE_DIGITS = 6  # so many and more stand for themselves; fewer need a link

CHAT_SHAPES = (Shape(_CHAT, is_lower=True),)


def find_chat_ids(text: str, lower: str) -> Iterator[Match]:
    """Accounts of messengers in a folded text; `lower` is the same in lower case."""
    if not (has_any(_LATIN_STEMS, lower) if lower.isascii() else _OTHER_STEM.search(lower)):
        return
    for found in _CHAT.finditer(lower):
        name = "number" if found["number"] else "id"
        start, end = found.span(name)
        link = lower[found.start() : start]
        if name == "number":
            is_account = end - start >= _SURE_DIGITS or ":" in link or bool(_NAMED.search(link))
        else:
            is_account = bool(_HAS_DIGIT.search(lower, start, end)) or (
                bool(_NAMED.search(link)) and (":" in link or "是" in link or "is" in link)
            )
        if is_account:
            yield Match("CHAT_ID", "named_account", start, end)
