"""What a policy asks a bundle's model about a text: scores of its content, and names in it.

`[input.heads.offensive]` in a policy names the task, or is a name with `task` beside it, where one
task has labels for several heads. The score leads to an action as a rule's hit does. The word list
goes on beside it: what either finds is in the verdict.

`[input.entities.personal-data]` names a task that finds entities: persons, organizations and
addresses, which no rule knows, are then personal data as what the rules find is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import Field, field_validator

from instructrec_deploy.core.manifest import Strict
from instructrec_deploy.core.result import Finding
from instructrec_deploy.safety.steps import Step, Steps, step_at

HeadCategory = Literal[
    "threat",
    "harassment",
    "hate",
    "sexual",
    "violence",
    "self_harm",
    "illegal_advice",
    "profanity",
    "injection",
]
Language = Literal["", "en", "zh"]
_HAN = re.compile("[\u3400-\u9fff]")


class Asked(Strict):
    """What a model is asked about texts of a language.

    `lang`: told by whether a text has Chinese characters; "": all.
    """

    lang: Language = ""

    def is_for(self, text: str) -> bool:
        """Whether it is asked about a text."""
        return not self.lang or (self.lang == "zh") == (_HAN.search(text) is not None)


class ContentHead(Asked):
    """What the score of one label of a task leads to.

    `task`: of the bundle; "": it has the head's own name.
    """

    task: str = ""
    label: str = Field(min_length=1)  # of the task: whose probability counts
    category: HeadCategory = "harassment"
    act: Steps = (Step(action="flag", threshold=0.5),)

    @field_validator("act")
    @classmethod
    def _not_masked(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        if any(step.action == "mask" for step in steps):
            raise ValueError("a head is about the whole text, so there is nothing to mask: block")
        return steps

    def asked(self, name: str) -> str:
        """The task of a head of this name."""
        return self.task or name

    def rule(self, name: str) -> str:
        """What findings of a head of this name call it."""
        return f"head {name}" if self.task else f"task {name}"

    def finding(self, name: str, score: float) -> Finding | None:
        """What a score leads to; None for nothing."""
        step = step_at(self.act, score)
        if step is None:
            return None
        return Finding(self.category, self.rule(name), step.action, score=score, review=step.review)


Heads = Mapping[str, ContentHead]  # by name


class EntityFinder(Asked):
    """Which entities of a task are personal data.

    `types`: the task's own word for a kind of entity -> a type of personal data.
    """

    types: dict[str, str] = Field(min_length=1)


Finders = Mapping[str, EntityFinder]  # by task of the bundle
