"""`safety.toml`: what happens to each kind of finding, going in and going out."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from instructrec_deploy.core.errors import BundleError, InstructRecError
from instructrec_deploy.core.manifest import Strict, parse_toml

Action = Literal["allow", "flag", "mask", "block"]
ACTIONS: tuple[Action, ...] = ("allow", "flag", "mask", "block")  # weakest first
# What stands in place of a masked value; keep: the value itself, so the finding is only flagged.
Operator = Literal["mask", "replace", "hash", "encrypt", "keep"]
OPERATORS: tuple[Operator, ...] = ("mask", "replace", "hash", "encrypt", "keep")
OTHER_TYPES = "default"  # in the table of operators: all types that it does not name
DEFAULT_VERSION = "default-1"


class PersonalDataPolicy(Strict):
    """Action for each type of personal data. The field names are the public type names."""

    EMAIL: Action = "mask"
    PHONE: Action = "mask"
    ADDRESS: Action = "mask"  # of streets; a town alone is none
    CREDIT_CARD: Action = "mask"  # bank cards too
    IBAN: Action = "mask"
    IP: Action = "mask"
    URL: Action = "mask"  # only with a password, a token or an address in it
    SECRET: Action = "mask"
    PASSPORT: Action = "mask"
    LICENSE_PLATE: Action = "mask"
    CN_ID: Action = "mask"
    CN_USCC: Action = "mask"
    US_SSN: Action = "mask"
    UK_NINO: Action = "mask"
    UK_NHS: Action = "mask"
    DE_TAX_ID: Action = "mask"
    FR_NIR: Action = "mask"
    ES_DNI: Action = "mask"
    NL_BSN: Action = "mask"
    IT_FISCAL: Action = "mask"
    PL_PESEL: Action = "mask"


class ContentPolicy(Strict):
    """Action for each content category."""

    threat: Action = "block"
    harassment: Action = "flag"
    profanity: Action = "flag"
    self_harm: Action = "flag"  # somebody who needs help must not meet a closed door


class DirectionPolicy(Strict):
    """What is done in one direction.

    `fail` says what happens when a check itself breaks: closed blocks, open flags and lets pass.
    """

    fail: Literal["closed", "open"] = "closed"
    personal_data: PersonalDataPolicy = Field(default_factory=PersonalDataPolicy)
    operators: dict[str, Operator] = Field(default_factory=dict)  # type or "default" -> operator
    content: ContentPolicy = Field(default_factory=ContentPolicy)

    @field_validator("operators")
    @classmethod
    def _types_exist(cls, operators: dict[str, Operator]) -> dict[str, Operator]:
        known = {OTHER_TYPES, *PersonalDataPolicy.model_fields}
        if unknown := sorted(set(operators) - known):
            raise ValueError(f"no types of personal data: {', '.join(unknown)}")
        return operators

    def operator(self, category: str) -> Operator:
        """What is done with a masked value of a type."""
        return self.operators.get(category, self.operators.get(OTHER_TYPES, "mask"))


class Policy(Strict):
    """`safety.toml`. What it leaves out has the default of this file."""

    version: str = Field(DEFAULT_VERSION, min_length=1, max_length=64)  # named by every verdict
    input: DirectionPolicy = Field(default_factory=DirectionPolicy)
    output: DirectionPolicy = Field(default_factory=DirectionPolicy)


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
# A table [input.operators] or [output.operators] says what stands in place of a masked value, by
# type or for all (default): mask, replace, hash, encrypt, keep; see docs/safety.md.
version = "default-1"                 # every verdict names it; change it with the policy

[input]                               # the text as sent
fail = "closed"                       # a check that breaks: "closed" blocks, "open" flags

[input.personal_data]
EMAIL = "mask"
PHONE = "mask"
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

[input.content]
threat = "block"                      # announced violence; within quotation marks only flagged
harassment = "flag"
profanity = "flag"
self_harm = "flag"                    # disclosures: flag them, so that somebody can help

[output]                              # the labels that go out
fail = "closed"

[output.personal_data]
EMAIL = "mask"
PHONE = "mask"
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

[output.content]
threat = "block"
harassment = "flag"
profanity = "flag"
self_harm = "flag"
"""
