"""`safety.toml`: what happens to each kind of finding, going in and going out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import reduce
from typing import Any, Literal, TypeVar, get_args

from pydantic import Field, field_validator, model_validator

from instructrec_deploy.core.errors import BundleError, InstructRecError
from instructrec_deploy.core.manifest import Strict, parse_toml
from instructrec_deploy.safety.heads import ContentHead, EntityFinder, HeadCategory
from instructrec_deploy.safety.presidio import PresidioPolicy
from instructrec_deploy.safety.steps import ACTIONS, Action, Step, Steps, always, strictest

# What stands in place of a masked value; keep: the value itself, so the finding is only flagged.
Operator = Literal["mask", "replace", "hash", "encrypt", "keep"]
OPERATORS: tuple[Operator, ...] = ("mask", "replace", "hash", "encrypt", "keep")  # most first
SectionT = TypeVar("SectionT", bound=Strict)
OTHER_TYPES = "default"  # in the table of operators: all types that it does not name
DEFAULT_VERSION = "default-1"


class PersonalDataPolicy(Strict):
    """Action for each type of personal data. The field names are the public type names."""

    EMAIL: Steps = always("mask")
    PHONE: Steps = always("mask")
    CHAT_ID: Steps = always("mask")  # accounts of messengers, where the text names them
    ADDRESS: Steps = always("mask")  # of streets; a town alone is none
    CREDIT_CARD: Steps = always("mask")  # bank cards too
    IBAN: Steps = always("mask")
    IP: Steps = always("mask")
    URL: Steps = always("mask")  # only with a password, a token or an address in it
    SECRET: Steps = always("mask")
    PASSPORT: Steps = always("mask")
    LICENSE_PLATE: Steps = always("mask")
    CN_ID: Steps = always("mask")
    CN_USCC: Steps = always("mask")
    US_SSN: Steps = always("mask")
    UK_NINO: Steps = always("mask")
    UK_NHS: Steps = always("mask")
    DE_TAX_ID: Steps = always("mask")
    FR_NIR: Steps = always("mask")
    ES_DNI: Steps = always("mask")
    NL_BSN: Steps = always("mask")
    IT_FISCAL: Steps = always("mask")
    PL_PESEL: Steps = always("mask")
    OTHER_ID: Steps = always("mask")  # where [input.presidio] asks for more
    PERSON: Steps = always("mask")  # these two where [input.entities.TASK] asks a model
    ORGANIZATION: Steps = always("mask")


class ContentPolicy(Strict):
    """Action for each content category."""

    threat: Steps = always("block")
    harassment: Steps = always("flag")
    profanity: Steps = always("flag")
    self_harm: Steps = always("flag")  # somebody who needs help must not meet a closed door
    injection: Steps = always("flag")  # signs only: a text that talks to the model as its master


# Which no rule of ours finds: only who is asked beside them does.
MODEL_TYPES = frozenset(("PERSON", "ORGANIZATION", "OTHER_ID"))
PERSONAL_TYPES = frozenset(PersonalDataPolicy.model_fields)
CONTENT_CATEGORIES = frozenset((*ContentPolicy.model_fields, *get_args(HeadCategory)))


class DirectionPolicy(Strict):
    """What is done in one direction.

    `fail` says what happens when a check itself breaks: closed blocks, open flags and lets pass.
    In a dry run nothing is masked or blocked; the verdict says what would have been.
    """

    fail: Literal["closed", "open"] = "closed"
    dry_run: bool = False
    review: tuple[Action, ...] = ()  # cases with one of these actions wait for a person, too
    personal_data: PersonalDataPolicy = Field(default_factory=PersonalDataPolicy)
    operators: dict[str, Operator] = Field(default_factory=dict)  # type or "default" -> operator
    content: ContentPolicy = Field(default_factory=ContentPolicy)
    word_model: bool = False  # a model of letters beside the word list, for disguised words
    heads: dict[str, ContentHead] = Field(default_factory=dict)  # by name, mostly that of the task
    entities: dict[str, EntityFinder] = Field(default_factory=dict)  # by task of the bundle

    presidio: PresidioPolicy | None = None  # whose recognizers are asked, too

    @property
    def asked_types(self) -> frozenset[str]:
        """Types that others than our rules are asked for."""
        asked = [finder.types for finder in self.entities.values()]
        asked += [self.presidio.types] if self.presidio else []
        return frozenset(name for types in asked for name in types.values())

    @model_validator(mode="after")
    def _asked_types_exist(self) -> DirectionPolicy:
        if unknown := sorted(self.asked_types - set(PersonalDataPolicy.model_fields)):
            raise ValueError(f"no types of personal data: {', '.join(unknown)}")
        return self

    @field_validator("operators")
    @classmethod
    def _types_exist(cls, operators: dict[str, Operator]) -> dict[str, Operator]:
        known = {OTHER_TYPES, *PersonalDataPolicy.model_fields}
        if unknown := sorted(set(operators) - known):
            raise ValueError(f"no types of personal data: {', '.join(unknown)}")
        return operators

    @property
    def asks_model(self) -> bool:
        """Whether a model is asked about texts."""
        return bool(self.heads or self.entities)

    def operator(self, category: str) -> Operator:
        """What is done with a masked value of a type."""
        return self.operators.get(category, self.operators.get(OTHER_TYPES, "mask"))

    def steps(self) -> dict[str, tuple[Step, ...]]:
        """What is said about each category, personal data and content alike."""
        return {
            name: getattr(table, name)
            for table in (self.personal_data, self.content)
            for name in type(table).model_fields
        }


class Override(Strict):
    """What is different for one task or one caller; what it leaves out stays as it is."""

    input: DirectionPolicy = Field(default_factory=DirectionPolicy)
    output: DirectionPolicy = Field(default_factory=DirectionPolicy)

    @model_validator(mode="after")
    def _heads_read_texts(self) -> Override:
        if self.output.asks_model:
            raise ValueError(
                "a model reads texts going in: only [input.heads.TASK] and [input.entities.TASK]"
            )
        return self


class Policy(Override):
    """`safety.toml`. What it leaves out has the default of this file."""

    version: str = Field(DEFAULT_VERSION, min_length=1, max_length=64)  # named by every verdict
    tasks: dict[str, Override] = Field(default_factory=dict)  # by the bundle's task
    tenants: dict[str, Override] = Field(default_factory=dict)  # by the name of the caller's key

    def parts(self) -> tuple[Override, ...]:
        """Its own words and all overrides."""
        return (self, *self.tasks.values(), *self.tenants.values())

    def resolved(self, tasks: Iterable[str] = (), tenant: str = "") -> Policy:
        """The policy for questions about these tasks by this caller, without overrides.

        A task's words stand before those for all, and the caller's before the task's. Of several
        tasks the strictest counts, dry runs apart. Names that it does not know change nothing.
        """
        found = []
        for task in sorted({task if task in self.tasks else "" for task in tasks} or {""}):
            both: Override = self
            for override in (self.tasks.get(task), self.tenants.get(tenant)):
                both = _overridden(both, override) if override else both
            found.append(both)
        return Policy(
            version=self.version,
            input=_strictest([one.input for one in found]),
            output=_strictest([one.output for one in found]),
        )

    def enforced(self) -> Policy:
        """The same without dry runs, for one that is resolved."""
        return self.model_copy(
            update={
                "input": self.input.model_copy(update={"dry_run": False}),
                "output": self.output.model_copy(update={"dry_run": False}),
            }
        )

    def readable(self) -> Policy:
        """What a reviewer may read of texts going in, for one that is resolved.

        Personal data that would be masked or blocked is masked; content stands as it was written.
        """
        own = self.input
        personal = {
            name: tuple(
                step.model_copy(update={"action": "mask"}) if step.action == "block" else step
                for step in steps
            )
            for name, steps in own.steps().items()
            if name in PersonalDataPolicy.model_fields
        }
        content = dict.fromkeys(ContentPolicy.model_fields, always("allow"))
        changes = {
            "fail": "closed",
            "dry_run": False,
            "personal_data": own.personal_data.model_copy(update=personal),
            "content": own.content.model_copy(update=content),
            "heads": {},
        }
        return self.model_copy(update={"input": own.model_copy(update=changes)})


def _overridden(base: SectionT, override: Strict) -> SectionT:
    """`base` with what `override` says itself."""
    changes: dict[str, Any] = {}
    for name in override.model_fields_set:
        old, new = getattr(base, name), getattr(override, name)
        if isinstance(old, Strict):
            new = _overridden(old, new)
        elif isinstance(old, dict):
            new = old | new
        changes[name] = new
    return base.model_copy(update=changes)


def _strictest(policies: Sequence[DirectionPolicy]) -> DirectionPolicy:
    """What all ask for. One that is only tried out blocks nothing where another is in force."""
    return reduce(_stricter, [one for one in policies if not one.dry_run] or policies)


def _stricter(one: DirectionPolicy, other: DirectionPolicy) -> DirectionPolicy:
    """What both ask for: of two actions the stronger, of two operators the one that hides more."""
    if one == other:
        return one

    def merged(first: SectionT, second: SectionT) -> SectionT:
        names = type(first).model_fields
        pairs = {name: strictest(getattr(first, name), getattr(second, name)) for name in names}
        return first.model_copy(update=pairs)

    types = PersonalDataPolicy.model_fields
    operators = {
        name: min(one.operator(name), other.operator(name), key=OPERATORS.index) for name in types
    }
    return DirectionPolicy(
        fail="closed" if "closed" in (one.fail, other.fail) else "open",
        dry_run=one.dry_run,  # both are, or neither
        review=tuple(dict.fromkeys((*one.review, *other.review))),
        personal_data=merged(one.personal_data, other.personal_data),
        operators=operators,
        content=merged(one.content, other.content),
        word_model=one.word_model or other.word_model,
        heads={**one.heads, **{task: _stricter_head(one, other, task) for task in other.heads}},
        presidio=_more_presidio(one.presidio, other.presidio),
        entities={
            **one.entities,
            **{task: _more_entities(one, other, task) for task in other.entities},
        },
    )


def _stricter_head(one: DirectionPolicy, other: DirectionPolicy, task: str) -> ContentHead:
    head, known = other.heads[task], one.heads.get(task)
    return head.model_copy(update={"act": strictest(known.act, head.act)}) if known else head


def _more_entities(one: DirectionPolicy, other: DirectionPolicy, task: str) -> EntityFinder:
    """Where both ask a task, what either asks for, in every language that either means."""
    finder, known = other.entities[task], one.entities.get(task)
    if known is None:
        return finder
    lang = finder.lang if finder.lang == known.lang else ""
    return EntityFinder(types={**finder.types, **known.types}, lang=lang)


def _more_presidio(
    one: PresidioPolicy | None, other: PresidioPolicy | None
) -> PresidioPolicy | None:
    """What either asks Presidio for."""
    if one is None or other is None:
        return one or other
    return PresidioPolicy(
        types={**other.types, **one.types},
        languages=tuple(dict.fromkeys((*one.languages, *other.languages))),
    )


def parse_policy(text: str, *, where: str, error: type[InstructRecError] = BundleError) -> Policy:
    """Read a policy; "" is the default policy.

    Raises:
        error: not TOML, an unknown key, or an unknown action; all faults are named at once.
    """
    try:
        return parse_toml(Policy, text, where=where, error=error)
    except error as fault:
        types = ", ".join(PersonalDataPolicy.model_fields)
        categories = ", ".join(ContentPolicy.model_fields)
        raise error(
            fault.message,
            hint=f"actions: {', '.join(ACTIONS)}; operators: {', '.join(OPERATORS)}; "
            f"personal_data: {types}; content: {categories}",
        ) from fault


def default_policy() -> Policy:
    """The policy of a `safety.toml` that says nothing."""
    return Policy.model_validate({})


def default_policy_text() -> str:
    """The default policy as commented TOML: what an export writes into a new bundle."""
    return DEFAULT_POLICY


DEFAULT_POLICY = """\
# Safety policy of this bundle.
# Actions, weakest first: allow (not looked for), flag (reported, text unchanged),
# mask (replaced by the type's name, such as [EMAIL]; the model reads the masked text),
# block (the model never sees the text; the answer comes back empty).
# Where findings overlap, the strongest action wins, then the longest span.
# {action = "flag", threshold = 0.5} acts from a score on; [tasks.NAME.input.content] and
# [tenants.NAME.input.content] say what is different for a task or a caller: docs/safety.md.
# A table [input.operators] or [output.operators] says what stands in place of a masked value, by
# type or for all (default): mask, replace, hash, encrypt, keep; see docs/safety.md.
version = "default-1"                 # every verdict names it; change it with the policy

[input]                               # the text as sent
fail = "closed"                       # a check that breaks: "closed" blocks, "open" flags

[input.personal_data]
EMAIL = "mask"
PHONE = "mask"
CHAT_ID = "mask"
ADDRESS = "mask"                      # of streets, with a number; a town alone is none
CREDIT_CARD = "mask"                  # bank cards too
IBAN = "mask"
IP = "mask"                           # public addresses only
URL = "mask"                          # only with a password or a token in it
SECRET = "mask"                       # keys, tokens, private keys, named passwords
PASSPORT = "mask"
LICENSE_PLATE = "mask"
CN_ID = "mask"                        # Chinese resident ID
CN_USCC = "mask"                      # Chinese social credit code
US_SSN = "mask"
UK_NINO = "mask"
UK_NHS = "mask"
DE_TAX_ID = "mask"
FR_NIR = "mask"
ES_DNI = "mask"                       # and NIE
NL_BSN = "mask"
IT_FISCAL = "mask"
PL_PESEL = "mask"
OTHER_ID = "mask"                     # where [input.presidio] asks for more
PERSON = "mask"                       # these two where [input.entities.TASK] asks a model
ORGANIZATION = "mask"

[input.content]
threat = "block"                      # announced violence; within quotation marks only flagged
harassment = "flag"
profanity = "flag"
self_harm = "flag"                    # disclosures: flag them, so that somebody can help
injection = "flag"                    # words that try to instruct the model

[output]                              # the labels that go out
fail = "closed"

[output.personal_data]
EMAIL = "mask"
PHONE = "mask"
CHAT_ID = "mask"
ADDRESS = "mask"
CREDIT_CARD = "mask"
IBAN = "mask"
IP = "mask"
URL = "mask"
SECRET = "mask"
PASSPORT = "mask"
LICENSE_PLATE = "mask"
CN_ID = "mask"
CN_USCC = "mask"
US_SSN = "mask"
UK_NINO = "mask"
UK_NHS = "mask"
DE_TAX_ID = "mask"
FR_NIR = "mask"
ES_DNI = "mask"
NL_BSN = "mask"
IT_FISCAL = "mask"
PL_PESEL = "mask"
OTHER_ID = "mask"
PERSON = "mask"
ORGANIZATION = "mask"

[output.content]
threat = "block"
harassment = "flag"
profanity = "flag"
self_harm = "flag"
injection = "flag"
"""
