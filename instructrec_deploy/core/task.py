"""Task kinds and the answer shape each one has (DESIGN: three shapes carry every task)."""

from __future__ import annotations

from enum import StrEnum

from instructrec_deploy.core.errors import RequestError


class Shape(StrEnum):
    """What an answer looks like."""

    CLASSIFY = "classify"  # a score for each candidate
    EXTRACT = "extract"  # spans of the text for each candidate type
    GENERATE = "generate"  # text


class TaskKind(StrEnum):
    """What a task is about; public words, used in data files, `tasks.toml` and on the wire."""

    CLASSIFICATION = "classification"
    SAFETY = "safety"
    RELATION = "relation"
    RANKING = "ranking"
    NER = "ner"
    QA = "qa"
    TRANSLATION = "translation"
    SUMMARIZATION = "summarization"
    DIALOGUE = "dialogue"


SHAPES: dict[TaskKind, Shape] = {
    TaskKind.CLASSIFICATION: Shape.CLASSIFY,
    TaskKind.SAFETY: Shape.CLASSIFY,
    TaskKind.RELATION: Shape.CLASSIFY,
    TaskKind.RANKING: Shape.CLASSIFY,
    TaskKind.NER: Shape.EXTRACT,
    TaskKind.QA: Shape.EXTRACT,
    TaskKind.TRANSLATION: Shape.GENERATE,
    TaskKind.SUMMARIZATION: Shape.GENERATE,
    TaskKind.DIALOGUE: Shape.GENERATE,
}


# Kinds whose answer is a score for each candidate.
SCORED_KINDS = tuple(kind for kind, shape in SHAPES.items() if shape is Shape.CLASSIFY)


def parse_kind(word: str) -> TaskKind:
    """A kind by its public word, or by that of a data file (`pii`, `recommendation`).

    Raises:
        RequestError: there is none of that name.
    """
    try:
        return ROW_KINDS[word]
    except KeyError:
        raise RequestError("no such kind of task", hint=f"one of {', '.join(ROW_KINDS)}") from None


# What the field `task` of a data row may say; a word that is not here is a task's name.
ROW_KINDS: dict[str, TaskKind] = {
    **{kind.value: kind for kind in TaskKind},
    "pii": TaskKind.NER,
    "recommendation": TaskKind.RANKING,
}
