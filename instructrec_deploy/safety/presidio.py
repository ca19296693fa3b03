"""Recognizers of Presidio beside our own, where a policy names what they find (extra `presidio`).

    [input.presidio]
    types = { MEDICAL_LICENSE = "OTHER_ID", US_DRIVER_LICENSE = "OTHER_ID" }

Presidio's recognizers that work by patterns are asked, in the languages named; those that need a
spaCy model are not: names are for `[input.entities.TASK]`. They read the folded text, so that a
disguise is undone for them, too. https://microsoft.github.io/presidio/supported_entities/
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from pydantic import Field

from instructrec_deploy.core.errors import ConfigError, MissingExtra
from instructrec_deploy.core.manifest import Strict
from instructrec_deploy.safety.match import Match


class PresidioPolicy(Strict):
    """What Presidio is asked for.

    `types`: its name of an entity -> a type of personal data.
    `languages`: whose recognizers are asked.
    """

    types: dict[str, str] = Field(min_length=1)
    languages: tuple[str, ...] = ("en",)


class Result(Protocol):
    """Presidio's `RecognizerResult`."""

    entity_type: str
    start: int
    end: int
    score: float


class Recognizer(Protocol):
    """Presidio's `EntityRecognizer`."""

    name: str
    supported_entities: Sequence[str]

    def analyze(self, text: str, entities: Any, nlp_artifacts: Any = None) -> Sequence[Result]:
        """Where entities of these names stand."""


class PresidioRecognizers:
    """Recognizers of Presidio, and what their entities are called here.

    Args:
        recognizers: each is asked for those entities that it knows of `types`.
        types: Presidio's name of an entity -> a type of personal data.
    """

    def __init__(self, recognizers: Sequence[Recognizer], types: Mapping[str, str]) -> None:
        wanted = ((one, sorted(set(types) & set(one.supported_entities))) for one in recognizers)
        self._asked = [(one, entities) for one, entities in wanted if entities]
        self._types = dict(types)

    def find(self, text: str) -> Iterator[Match]:
        """What they find in a folded text."""
        for recognizer, entities in self._asked:
            for one in recognizer.analyze(text, entities, None):
                if one.entity_type in self._types and one.start < one.end:
                    category = self._types[one.entity_type]
                    rule = f"presidio {one.entity_type}"
                    yield Match(category, rule, one.start, one.end, score=float(one.score))


def open_presidio(policy: PresidioPolicy) -> PresidioRecognizers:
    """Presidio's own recognizers for what a policy asks.

    Raises:
        MissingExtra: presidio-analyzer is not installed.
        ConfigError: none of its recognizers by patterns finds an entity that is asked for.
    """
    try:
        from presidio_analyzer import PatternRecognizer, RecognizerRegistry
        from presidio_analyzer.predefined_recognizers import PhoneRecognizer
    except ImportError as error:
        raise MissingExtra(
            "the safety policy asks Presidio, which is not installed",
            hint="pip install 'instructrec-deploy[presidio]', or leave [input.presidio] out",
        ) from error
    registry = RecognizerRegistry()
    registry.load_predefined_recognizers(languages=list(policy.languages))
    by_patterns = (PatternRecognizer, PhoneRecognizer)
    found = [one for one in registry.recognizers if isinstance(one, by_patterns)]
    known = {entity for one in found for entity in one.supported_entities}
    if unknown := sorted(set(policy.types) - known):
        raise ConfigError(
            f"Presidio has no recognizer by patterns for {', '.join(unknown)}",
            hint=f"for {', '.join(policy.languages)} it has {', '.join(sorted(known))}",
        )
    return PresidioRecognizers(found, policy.types)
