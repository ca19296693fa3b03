"""A small curated list, English and Chinese: threats, harassment, profanity, self-harm, injection.

It finds plain wordings only; it is a floor under a classifier, not in place of one. English
entries are looked at when one of their trigger words stands in the text as a whole word (so
"Scunthorpe" and "skills" trigger nothing); Chinese entries match as substrings.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from instructrec_deploy.safety import reach
from instructrec_deploy.safety.disguises import DISGUISE_SHAPES, undisguise
from instructrec_deploy.safety.match import Match, matches
from instructrec_deploy.safety.pending import Shape, first_open
from instructrec_deploy.safety.recognizers.nearby import has_any

_WORDS_ONLY = bytes(
    c if chr(c) in "0123456789abcdefghijklmnopqrstuvwxyz" else 32 for c in range(256)
)
_LETTER = re.compile("[a-z@$\u4e00-\u9fff]")  # of the list, or in place of one
_QUOTES = re.compile('["“「『«„]')


@dataclass(frozen=True, slots=True)
class Entry:
    """One rule. `triggers`: lower-case ASCII words one of which every match contains.

    A space in an English pattern stands for up to three white spaces.
    """

    category: str
    rule: str
    pattern: str
    triggers: str = ""  # empty: a Chinese entry
    gate: str = ""  # characters one of which every match contains that has no trigger
    needs: str = ""  # parts of words one of which every match contains, where triggers say little


_WILL = (
    r"(?:(?:i|we)(?:'?ll| will| shall| wanna| gonna| want to| swear i(?:'?ll| will)"
    r"|(?:'?m| am|'?re| are) (?:gonna|going to|about to|coming to))|imma|ima)"
)
_HOW = (
    r"(?: (?:really|personally|fucking|definitely|just|so|come(?: over)? and"
    r"|find you and|hunt you down and|get a (?:gun|knife) and))?"
)
_WHOM = (  # not "them": those may be processes
    r"(?:you|u|him|her|your (?:\w{1,12} )?(?:family|wife|husband|kids?|children|mother|dog)"
    r"|every(?:one|body)(?: (?:in|at) \w{1,12})?|all of (?:you|them))"
)
_YOU_ARE = (
    r"(?:you(?:'?re| are)|ur|u r)"
    r"(?: (?:all|just|such|nothing but|a|an|the|so|fucking|total|complete|little)){0,4}"
)
_INSULTS = (
    "idiots?|morons?|imbeciles?|retards?|scum|trash|garbage|vermin|losers?|pathetic|worthless"
)

_EARLIER = r"(?:previous|prior|above|earlier|preceding|former|existing|original|initial|system)"
_ORDERS = r"(?:instructions?|prompts?|rules?|directions?|guidelines?|directives?|orders given)"
_ANY_OF = r"(?:all |any |of |the |your |my |our |these |those |every )"

ENTRIES = (
    # English
    Entry(
        "threat",
        "threat_en",
        rf"{_WILL}{_HOW} (?:(?:kill|murder|strangle|behead|stab|rape|shoot)"
        rf" {_WHOM}(?![a-z0-9])(?! (?:an?|the|some|over|that|this|with kindness)(?![a-z]))"
        rf"|(?:beat|burn|cut) {_WHOM} (?:up|down|to death|alive|to pieces)|slit your throat)",
        "kill murder strangle behead stab rape shoot beat burn cut slit",
    ),
    Entry(
        "threat",
        "threat_places_en",
        rf"{_WILL}{_HOW} (?:bomb|blow up|shoot up|burn down|set fire to)"
        r" (?:the|your|this|that|my)"
        r" (?:\w{1,15} )?(?:school|office|bank|branch|house|home|church|mosque|synagogue|plane"
        r"|airport|station|building|hospital|place)",
        "bomb blow shoot burn fire",
    ),
    Entry(
        "harassment",
        "insult_en",
        rf"{_YOU_ARE} (?:{_INSULTS})(?![a-z])"
        r"|(?:stupid|dumb|worthless|ugly) (?:bitch|cow|pig|cunt)",
        "idiot idiots moron morons imbecile imbeciles retard retards scum trash garbage vermin"
        " loser losers pathetic worthless bitch cow pig cunt",
    ),
    Entry(
        "harassment",
        "wish_en",
        r"(?:go )?(?:kill yourself|die in a fire|drop dead)|you (?:should|deserve to) (?:just )?die"
        r"|kys|shut the fuck up|stfu|piece of shit|nobody (?:likes|loves) you",
        "yourself fire dead die kys stfu fuck shit nobody",
        needs="yourself fire dead die kys stfu shut piece nobody",
    ),
    Entry(
        "harassment",
        "slur_en",
        r"faggots?|fags|retarded|trann(?:y|ies)|nigg(?:er|ers|a|az)|kikes?|spics?|wetbacks?|gooks?"
        r"|(?:rag|towel|sand)(?:heads?| niggers?)|dirty (?:immigrants?|foreigners?|jews?|muslims?)"
        r"|sub-?humans?",
        "faggot faggots fags retarded tranny trannies nigger niggers nigga niggaz kike kikes spic"
        " spics wetback wetbacks gook gooks raghead ragheads towelhead towelheads sandhead"
        " sandheads dirty subhuman subhumans humans human",
    ),
    Entry(
        "profanity",
        "swear_en",
        r"(?:mother(?: )?)?fuck(?:s|ed|er|ers|ing|in|wit)?|f[*$]{1,4}c?k(?:ing|ed|er)?|fck(?:ing)?"
        r"|(?:bull)?shit(?:s|ty|ting)?|sh[*$]t|assholes?|arseholes?|bitch(?:es|y)?|cunts?|wankers?"
        r"|dickheads?|wtf",
        "fuck fucks fucked fucker fuckers fucking fuckin fuckwit motherfucker motherfuckers"
        " motherfucking motherfuck motherfucks motherfucked motherfuckin motherfuckwit fck fcking"
        " shit shits shitty shitting bullshit sh*t sh$t asshole assholes arsehole arseholes"
        " bitch bitches bitchy cunt cunts wanker wankers dickhead dickheads wtf",
        gate="*$",
    ),
    Entry(
        "self_harm",
        "self_harm_en",
        r"(?:kill|killing|hang|hanging|harming|cutting) myself(?! laughing)"
        r"|(?:to|wanna|gonna) (?:hurt|harm|cut) myself|(?:end|ending|take|taking) my (?:own )?life"
        r"|(?:want|wish|wanna|ready) (?:to )?die(?! (?:of|for|laughing))"
        r"|(?:do not|don'?t|no longer) want to (?:live|be alive|exist|wake up)"
        r"|(?:i am|i'?m|i feel|i'?ve been|feeling) (?:so |very )?suicidal|no reason to live"
        r"|better off (?:dead|without me)|i (?:\w{1,12} ){0,3}commit suicide"
        r"|wish i (?:was|were) dead",
        "myself life die live alive exist wake suicidal dead without suicide",
    ),
    Entry(
        "injection",
        "injection_en",
        rf"(?:ignore|disregard|forget|override|bypass) {_ANY_OF}{{0,4}}"
        rf"(?:{_EARLIER}(?:(?: and|,|/)? \w{{1,12}}){{0,2}} {_ORDERS}"
        rf"|{_ORDERS}(?: (?:above|before|you)))"
        r"|(?:ignore|disregard|forget) (?:everything|anything|what)"
        r" (?:you (?:were|have been|know)|above)"
        r"|(?:your )?new instructions?(?: are| is)?:"
        r"|(?:reveal|print|show|repeat|output|leak) (?:me )?(?:your|the) (?:\w{1,12} )?"
        r"(?:system|hidden|initial|secret) (?:prompts?|instructions?|messages?)"
        r"|(?:classify|label|mark|tag|categori[sz]e|rate) (?:this|it|the above|that)"
        r"(?: (?:text|message|review|request|one))? (?:as|with)"
        r"|(?:the )?(?:correct|right|true|only|final) (?:answer|label|class|category|intent|output)"
        r"(?: (?:here|now|for this(?: text| message)?))? (?:is|must be|should be|=|:)"
        r"|(?:answer|respond|reply|output)(?: only| just)? with (?:the |only )?"
        r"(?:label|word|class|category|intent)"
        r"|do anything now|(?:dan|developer|god|jailbreak) mode|jailbroken",
        "ignore disregard forget override bypass new reveal print show repeat output leak classify"
        " label mark tag categorise categorize rate correct right true only final answer respond"
        " reply anything mode jailbroken",
    ),
    # Chinese
    Entry(
        "injection",
        "injection_zh",
        r"(?:忽略|无视|忘记|忘掉|不要理会|不用管|抛开|跳过)(?:掉|你|所有|全部|一切|任何)?的?"
        r"(?:之前|以上|上面|上述|前面|先前|此前|原有|原来|系统|所有|全部)的?[^，。！？；,.!?;\s]{0,6}?"
        r"(?:指令|提示|要求|规则|设定|指示|说明|命令|限制)"
        r"|(?:输出|显示|告诉我|打印|重复|泄露|说出)(?:一下|出)?你的?(?:系统|初始|隐藏|全部)?的?"
        r"(?:提示词|系统提示|指令|设定)"
        r"|[请把将](?:把|将)?(?:这|它|本|上|此|该)[^，。！？；,.!?;\s]{0,6}?(?:分类|归类|标记|标注|标为|判断|判定|分)"
        r"(?:为|成|到|作)"
        r"|(?:正确|标准|真正|唯一)的?(?:答案|标签|类别|分类|意图)(?:只能)?(?:是|为|应该是|应为|:)"
        r"|(?:只|仅|直接)(?:需|要|能)?(?:回答|输出|回复)(?:标签|类别|分类)|新的?指令(?:是|如下|:)"
        r"|(?:开发者|越狱|上帝)模式",
        gate="指提要规设示说命限词类归标判答式",
    ),
    Entry(
        "threat",
        "threat_zh",
        r"(?:我|老子|俺|咱)们?[^被不没别未，。！？、；：,.!?;:\s]{0,6}?"
        r"(?=[杀弄砍捅打整掐炸烧宰])(?:(?:杀|弄死|砍死|捅死|打死|整死|掐死|炸死|烧死|宰了|砍了)(?:了|掉|光)?[你您]们?"
        r"(?!的?(?:英雄|角色|号|兵|怪|价))|杀了[他她]们?|杀光?所有人)"
        r"|(?:弄死|砍死|捅死|掐死|宰了)你|[杀灭]了?你们?全家|[取要]你的?狗命|打断你的?[腿手]"
        r"|炸了?你们?的?(?:学校|公司|银行|家)|烧了你们?的?(?:家|房子|店|公司)",
        gate="死杀宰砍灭命断炸烧",
    ),
    Entry(
        "harassment",
        "insult_zh",
        r"你们?(?:这个|这种|这|就是|真是|真|是|个|一个|群|一群|帮|些|都){0,3}"
        r"(?:白痴|废物(?!利用)|垃圾(?!桶|袋|箱|分类|邮件|短信)|贱人|贱货|婊子|蠢货|蠢猪|智障|脑残"
        r"|人渣|畜生|傻[逼屄比叉])"
        r"|(?:你|都|给我|赶紧|快)(?:怎么)?(?:还)?(?:不)?去死|去死吧|死全家|全家死光|狗杂种",
        gate="痴废垃贱婊蠢智脑渣畜傻死种",
    ),
    Entry(
        "harassment",
        "slur_zh",
        r"黑鬼|尼哥|白皮猪|死(?:基佬|娘炮|变态|肥猪|胖子|光头|穷鬼|残废)|(?:绿茶|圣母|心机|汉子|臭)婊"
        r"|臭(?:傻|三八|娘们|不要脸)|(?:狗|贱|烂)(?:东西|杂碎|玩意|娘养)|骚[货逼]|脑瘫|杂种|龟孙|孬种"
        r"|(?:小日本|日本)鬼子|[女男]拳师|(?:田园|中华)女权|(?:蝻|蛆)一样|普信[男女]|直男癌",
        gate="鬼哥猪死婊臭东杂玩娘骚瘫种孙拳权蝻蛆普癌",
    ),
    Entry(
        "profanity",
        "swear_zh",
        r"(?:[操肏艹]|(?<![今节昨明每平当假某近生])日)你[妈娘](?!妈)|草泥马|他妈的|你妈的|妈[逼屄]"
        r"|[操肏艹草曹糙][你尼泥拟][妈马玛🐎](?![妈虎上路])|马勒戈壁|麻辣隔壁|妈了个[巴逼]|踏马的|他🐎的"
        r"|[傻煞][缺杯吊]|[煞沙]b(?![a-z0-9])|[傻煞]bi(?![a-z])|婊砸|[臭死贱]表[子砸]|碧池(?!塘|边)"
        r"|[傻沙煞][逼屄比笔](?!例|较|赛|喻|记|利)|傻[屌叉bx](?![a-z])|狗[日逼]的?(?!子)|王八[蛋羔]|操蛋"
        r"|[卧我][槽艹肏]|我操(?![作心控练场纵持])|去你(?:妈(?!妈)|大爷)|尼玛(?!县|的)|[泥曹]尼?马的?比"
        r"|麻痹的|妈卖[批逼]|滚犊子|装[逼屄]"
        r"|(?<![a-z0-9])sb(?![a-z0-9]|[-_/.]?[0-9])(?<=[\u4e00-\u9fff]sb)(?<![号型款码版区座]sb)",
        gate="妈娘傻沙煞日狗王操槽艹肏你玛马痹滚逼屄b曹草糙🐎婊表碧隔",
    ),
    Entry(
        "profanity",
        "swear_pinyin",
        r"nmsl|w?cnm[bd]?|wdnmd|tmd|mlgb|cao(?: )?(?:ni|[你尼泥])(?: )?(?:ma|[妈马玛])"
        r"|sha(?:bi|[逼币])|ni (?:zhe )?(?:ge )?sha bi|ta(?: )?ma(?: )?de|wang(?: )?ba(?: )?dan"
        r"|gou(?: )?ri(?: )?de",
        "nmsl cnm cnmb cnmd wcnm wcnmb wcnmd wdnmd tmd mlgb cao caoni caonima shabi sha bi ta tama"
        " tamade made wang wangba wangbadan dan gou gouri gouride",
    ),
    Entry(
        "self_harm",
        "self_harm_zh",
        r"不想活(?!动)|活不下去"
        r"|活着(?:真的?|好|还有什么|有什么|也?没有?什么?|没)(?:没有?意思|意思|意义|累)"
        r"|(?:我|好|真的?|只|就|很|特别|经常|总是?)想死(?!你|他|她|妈|爸|大家|这|那|我)"
        r"|[想要](?:过)?自杀|准备自杀|自杀的?(?:念头|想法)|轻生的?念头|想轻生|[想要]自残|割腕"
        r"|结束(?:我|自己)的?(?:生命|一生)|死了算了",
        gate="活死杀生残腕",
    ),
)


class Lexicon:
    """The compiled list. Immutable after construction."""

    def __init__(self, entries: tuple[Entry, ...] = ENTRIES) -> None:
        by_word: dict[bytes, set[int]] = {}
        for index, entry in enumerate(entries):
            for word in entry.triggers.encode().split():  # of sh*t, which has a mark, the sh
                by_word.setdefault(word.translate(_WORDS_ONLY).split()[0], set()).add(index)
        self._entries = entries
        self._by_word = by_word
        self._words = frozenset(word for entry in entries for word in entry.triggers.split())
        self._needs = tuple(tuple(entry.needs.split()) for entry in entries)
        self._patterns = tuple(
            re.compile(
                rf"(?<![a-z0-9])(?:{entry.pattern})(?![a-z0-9])".replace(" ", r"\s{1,3}")
                if entry.triggers
                else entry.pattern
            )
            for entry in entries
        )
        self._gates = tuple(
            (i, re.compile(f"[{entry.gate}]" if entry.gate else ""))
            for i, entry in enumerate(entries)
            if entry.gate or not entry.triggers
        )
        self._any_gate = re.compile(f"[{''.join(re.escape(entry.gate) for entry in entries)}]")
        self._shapes = tuple(map(Shape, self._patterns))
        self._quoted_shapes = tuple(Shape(pattern, reach.QUOTE) for pattern in self._patterns)

    def find(self, text: str, categories: frozenset[str]) -> list[Match]:
        """Hits in a folded text in lower case; they may overlap.

        Words in leetspeak, with letters apart or with marks inside are looked for in copies.
        """
        if not _LETTER.search(text):
            return []
        hits: list[Match] = []
        for category, rule, spans in self._spans(text, categories):
            hits += matches(category, rule, spans)
        has_han = not text.isascii() and self._any_gate.search(text) is not None
        for plain in undisguise(text, self._words, has_han=has_han):
            for category, rule, spans in self._spans(plain.copy.text, categories):
                hits += matches(category, rule, plain.copy.spans(plain.spelled(spans)))
        return mark_quoted(text, hits)

    def open(self, text: str, groups: Sequence[frozenset[str]], start: int) -> list[int]:
        """For each group of categories: where what more text could turn into a hit begins.

        Or change as one; the text's length where there is none. What was decided before `start` is
        left aside.
        """
        all_shapes = self._quoted_shapes if _QUOTES.search(text) else self._shapes
        pairs = list(zip(self._entries, all_shapes, strict=True))
        shapes = [[shape for entry, shape in pairs if entry.category in group] for group in groups]
        end = first_open(DISGUISE_SHAPES, text, text, start)
        first = [min(end, first_open(some, text, text, start)) for some in shapes]
        if end < len(text):
            head = text[:end]
            first = [
                min(a, first_open(b, head, head, start)) for a, b in zip(first, shapes, strict=True)
            ]
        for plain in undisguise(text, self._words, is_open=True):
            cut = bisect_left(plain.copy.starts, end)
            copy, begin = plain.copy.text[:cut], bisect_left(plain.copy.starts, start)
            places = [first_open(some, copy, copy, begin) for some in shapes]
            first = [
                min(a, plain.copy.starts[b] if b < cut else end)
                for a, b in zip(first, places, strict=True)
            ]
        return first

    @property
    def words(self) -> frozenset[str]:
        """The words that set off its English entries."""
        return self._words

    def _spans(
        self, text: str, categories: frozenset[str]
    ) -> Iterator[tuple[str, str, list[tuple[int, int]]]]:
        """Category, rule and spans of each entry that has a hit in a text."""
        wanted = self._triggered(text)
        if self._any_gate.search(text):
            is_latin = text.isascii()
            for index, gate in self._gates:
                if (self._entries[index].triggers or not is_latin) and gate.search(text):
                    wanted.add(index)
        for index in sorted(wanted):
            entry = self._entries[index]
            needs = self._needs[index]
            if entry.category in categories and (not needs or has_any(needs, text)):
                spans = [match.span() for match in self._patterns[index].finditer(text)]
                if spans:
                    yield entry.category, entry.rule, spans

    def _triggered(self, text: str) -> set[int]:
        """The entries of which a trigger stands in a text in lower case as a whole word."""
        # A table of bytes is several times as fast as a pattern.
        found = text.encode("ascii", "replace").translate(_WORDS_ONLY).split()
        words = self._by_word.keys() & found
        return {index for word in words for index in self._by_word[word]}


def mark_quoted(text: str, hits: list[Match]) -> list[Match]:
    """The hits, those within quotation marks named so."""
    if not hits or not _QUOTES.search(text):
        return hits
    quotes = _Quotes(text)
    return [hit._replace(is_quoted=quotes.hold(hit.start, hit.end)) for hit in hits]


class _Quotes:
    """The quotation marks of a text."""

    def __init__(self, text: str) -> None:
        self._opening = [mark.start() for mark in re.finditer("[“「『«„]", text)]
        self._closing = [mark.start() for mark in re.finditer("[”」』»]", text)]
        self._straight = [mark.start() for mark in re.finditer('"', text)]

    def hold(self, start: int, end: int) -> bool:
        """Whether [start, end) stands within quotation marks that are near."""
        left = start - reach.QUOTE
        opened = bisect_left(self._opening, start)
        if opened and self._opening[opened - 1] >= left:
            closed = bisect_left(self._closing, start)
            if not closed or self._closing[closed - 1] < self._opening[opened - 1]:
                return True
        if not self._straight:
            return False
        before = bisect_left(self._straight, start)
        if (before - bisect_left(self._straight, left)) % 2 == 0:
            return False
        after = bisect_left(self._straight, end)
        return after < len(self._straight) and self._straight[after] < end + reach.QUOTE
