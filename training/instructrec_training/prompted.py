"""Rows whose input is a whole prompt, taken apart: the text and the question that stand in it.

Sets such as T0's mixture (Sanh et al. 2022, arXiv:2110.08207) write task, text and question into
one string. An instruction encoder reads the text without its instruction, so a pattern with named
groups says where the text stands; what lies around it is left to the task's own wordings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from instructrec_deploy.core.example import Example

FIELDS = ("text", "text2", "question")  # names of groups


def pattern_fault(pattern: str) -> str:
    """What is wrong with a pattern of `prompts`; "" where nothing is."""
    try:
        names = set(re.compile(pattern).groupindex)
    except re.error as error:
        return f"{pattern!r} is no regular expression: {error}"
    if "text" not in names or not names <= set(FIELDS):
        return f"{pattern!r} needs a group (?P<text>...), and of others only text2 and question"
    return ""


def rows_where(examples: Iterable[Example], where: Mapping[str, str]) -> list[Example]:
    """Rows each of whose named fields is fitted, whole, by its regular expression."""
    tests = {name: re.compile(pattern, re.DOTALL) for name, pattern in where.items()}
    return [
        example
        for example in examples
        if all(test.fullmatch(_field(example, name)) for name, test in tests.items())
    ]


def take_apart(examples: Iterable[Example], prompts: Sequence[str]) -> list[Example]:
    """The parts of each prompt by the first pattern that is found in it.

    Prompts that no pattern fits are left out, and so are questions whose answer does not stand in
    the text. A text that several prompts ask the same about is taken once.

    Args:
        examples: whose `text` is a prompt; `target` is its output, or a list of right ones.
        prompts: regular expressions; "." takes line ends, too.
    """
    patterns = [re.compile(pattern, re.DOTALL) for pattern in prompts]
    found: dict[tuple[str, ...], Example] = {}
    for example in examples:
        match = next((m for p in patterns if (m := p.search(example.text))), None)
        if match is None:
            continue
        parts = {name: words.strip() for name, words in match.groupdict().items() if words}
        text, text2, question = (parts.get(name, "") for name in FIELDS)
        outputs = example.target if isinstance(example.target, list) else [example.target]
        outputs = [output for output in outputs if isinstance(output, str) and output.strip()]
        if question:
            outputs = [words for output in outputs if (words := _as_it_stands(output, text))]
        if not text or not outputs:
            continue
        target: Any = outputs if question else outputs[0]
        row = replace(example, text=text, text2=text2, target=target)
        if question:
            row = replace(row, extra={**example.extra, "question": question})
        found.setdefault((text, text2, question), row)
    return list(found.values())


def _as_it_stands(answer: str, text: str) -> str:
    """The passage's own words for an answer, whose case may differ; "" where it lacks them."""
    if answer in text:
        return answer
    match = re.search(re.escape(answer), text, re.IGNORECASE)
    return match.group() if match else ""


def rename_labels(examples: Iterable[Example], names: Mapping[str, str]) -> list[Example]:
    """Rows with the labels that the file calls otherwise under their own names."""
    return [
        replace(example, target=names[example.target])
        if isinstance(example.target, str) and example.target in names
        else example
        for example in examples
    ]


def _field(example: Example, name: str) -> str:
    return str(example.extra[name] if name in example.extra else getattr(example, name, ""))
