"""What at the end of a text more text could still turn into a match: derived from the pattern.

A stream of text may only go on up to where no rule is undecided. For each pattern of a rule a
second one is made from its parsed form: it matches where the first, or a part of it, reaches the
end of the text. So what is held back follows from the rules themselves.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from re import _constants as op  # type: ignore[attr-defined]  # the parser that re itself uses
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

_END = r"\Z"
_REPEATS = (op.MAX_REPEAT, op.MIN_REPEAT, op.POSSESSIVE_REPEAT)
_CATEGORIES = {
    op.CATEGORY_DIGIT: r"\d",
    op.CATEGORY_NOT_DIGIT: r"\D",
    op.CATEGORY_SPACE: r"\s",
    op.CATEGORY_NOT_SPACE: r"\S",
    op.CATEGORY_WORD: r"\w",
    op.CATEGORY_NOT_WORD: r"\W",
}
_PLACES = {op.AT_BEGINNING: "^", op.AT_BEGINNING_STRING: r"\A", op.AT_END_STRING: r"\Z"}


class Shape:
    """The form of what a rule looks for, its surroundings included.

    Its open form is made when a stream first asks for it. Threads may share it.

    Args:
        pattern: every match of the rule, from its first character that may be masked or from
            before it, is one of the pattern's.
        after: how many characters behind a match the rule reads.
        is_lower: whether it is for the text in lower case.
    """

    def __init__(self, pattern: re.Pattern[str], after: int = 0, *, is_lower: bool = False) -> None:
        self.is_lower = is_lower
        self._pattern = pattern
        self._after = after
        self._open: re.Pattern[str] | None = None
        self._chars = 0  # how far before the end of a text an open stretch may begin

    def first(self, text: str, start: int) -> int:
        """Where the first stretch begins, from `start` on, that more text could complete.

        Also a match whose surroundings are not all there yet. The text's length where there is
        none.
        """
        if self._open is None:
            self._chars = longest(self._pattern) + self._after
            self._open = open_form(self._pattern, self._after)
        found = self._open.search(text, max(start, len(text) - self._chars))
        return found.start() if found else len(text)


def first_open(shapes: Iterable[Shape], text: str, lower: str, start: int) -> int:
    """The first of all shapes' undecided stretches in a text; its length where there is none."""
    first = len(text)
    for shape in shapes:
        first = min(first, shape.first(lower if shape.is_lower else text, start))
    return first


def open_form(pattern: re.Pattern[str], after: int = 0) -> re.Pattern[str]:
    """A pattern that matches at each place from which `pattern` could match if more text came.

    It may match at more places, never at fewer: a reference to a group counts as any text that
    the group may hold, and a look-ahead that runs into the end as undecided.

    Args:
        pattern: without possessive parts.
        after: a whole match that ends fewer characters than this before the end counts, too.
    """
    groups: dict[int, Any] = {}
    tree = list(parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE))
    _collect(tree, groups)
    form = _partial(tree, groups)
    if after:
        form = rf"(?:{form}|{_full(tree, groups)}(?=[\s\S]{{0,{after - 1}}}\Z))"
    return re.compile(form, pattern.flags & ~re.UNICODE)


def longest(pattern: re.Pattern[str]) -> int:
    """How many characters a match can have at most, look-aheads included; very many: no bound."""
    tree = parser.parse(pattern.pattern, pattern.flags & ~re.UNICODE)
    return int(tree.getwidth()[1]) + _looks_ahead(tree)


def _looks_ahead(nodes: Iterable[Any]) -> int:
    chars = 0
    for kind, value in nodes:
        if kind in (op.ASSERT, op.ASSERT_NOT):
            chars += value[1].getwidth()[1] + _looks_ahead(value[1])
        elif kind is op.SUBPATTERN:
            chars += _looks_ahead(value[3])
        elif kind in _REPEATS:
            chars += value[1] * _looks_ahead(value[2])
        elif kind is op.BRANCH:
            chars += sum(_looks_ahead(branch) for branch in value[1])
        elif kind is op.GROUPREF_EXISTS:
            chars += sum(_looks_ahead(branch or ()) for branch in value[1:])
    return chars


def _collect(nodes: Iterable[Any], groups: dict[int, Any]) -> None:
    for kind, value in nodes:
        if kind is op.SUBPATTERN:
            if value[0] is not None:
                groups[value[0]] = list(value[3])
            _collect(value[3], groups)
        elif kind in _REPEATS:
            _collect(value[2], groups)
        elif kind is op.BRANCH:
            for branch in value[1]:
                _collect(branch, groups)


def _partial(nodes: list[Any], groups: dict[int, Any]) -> str:
    """Any part of a sequence, from its beginning, that reaches the end of the text."""
    form = _END
    for node in reversed(nodes):
        form = f"(?:{_broken_off(node, groups)}|{_node(node, groups)}{form})"
    return form


def _broken_off(node: Any, groups: dict[int, Any]) -> str:
    """A node in the middle of which the text ends."""
    kind, value = node
    if kind is op.SUBPATTERN:
        return _partial(list(value[3]), groups)
    if kind is op.BRANCH:
        return "(?:" + "|".join(_partial(list(branch), groups) for branch in value[1]) + ")"
    if kind in _REPEATS:
        least, most, inner = value
        inner = list(inner)
        if _is_character(inner):
            return f"{_full(inner, groups)}{{0,{least - 1}}}{_END}" if least > 1 else _END
        times = "*" if most is op.MAXREPEAT else f"{{0,{most - 1}}}"
        return f"(?:{_full(inner, groups)}){times}{_partial(inner, groups)}"
    if kind in (op.ASSERT, op.ASSERT_NOT) and value[0] > 0:
        return f"(?={_partial(list(value[1]), groups)})"
    if kind is op.GROUPREF:
        return _partial(groups[value], groups)
    if kind is op.GROUPREF_EXISTS:
        _, yes, no = value
        return f"(?:{_partial(list(yes), groups)}|{_partial(list(no or []), groups)})"
    return _END


def _is_character(nodes: list[Any]) -> bool:
    characters = (op.LITERAL, op.NOT_LITERAL, op.IN, op.ANY)
    return len(nodes) == 1 and nodes[0][0] in characters


def _full(nodes: Iterable[Any], groups: dict[int, Any]) -> str:
    return "".join(_node(node, groups) for node in nodes)


def _node(node: Any, groups: dict[int, Any]) -> str:  # one case for each kind of node
    kind, value = node
    if kind is op.LITERAL:
        return re.escape(chr(value))
    if kind is op.NOT_LITERAL:
        return f"[^{_in_set(value)}]"
    if kind is op.ANY:
        return "."
    if kind is op.IN:
        return f"[{''.join(map(_set_part, value))}]"
    if kind is op.SUBPATTERN:
        return f"(?:{_full(value[3], groups)})"
    if kind is op.BRANCH:
        return "(?:" + "|".join(_full(branch, groups) for branch in value[1]) + ")"
    if kind in _REPEATS:
        least, most, inner = value
        most = "" if most is op.MAXREPEAT else most
        return f"(?:{_full(inner, groups)}){{{least},{most}}}"
    if kind in (op.ASSERT, op.ASSERT_NOT):
        direction, inner = value
        sign = "=" if kind is op.ASSERT else "!"
        return f"(?{'' if direction > 0 else '<'}{sign}{_full(inner, groups)})"
    if kind is op.GROUPREF:
        return f"(?:{_full(groups[value], groups)})"
    if kind is op.GROUPREF_EXISTS:
        _, yes, no = value
        return f"(?:{_full(yes, groups)}|{_full(no or [], groups)})"
    if kind is op.AT:
        return _PLACES[value]
    raise ValueError(f"no open form of {kind}")


def _set_part(part: tuple[Any, Any]) -> str:
    kind, value = part
    if kind is op.NEGATE:
        return "^"
    if kind is op.RANGE:
        return f"{_in_set(value[0])}-{_in_set(value[1])}"
    return _CATEGORIES[value] if kind is op.CATEGORY else _in_set(value)


def _in_set(code: int) -> str:
    char = chr(code)
    return f"\\{char}" if char in r"\]^[-&~|" else char
