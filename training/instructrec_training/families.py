"""`instructions_from` in a recipe's tasks: wordings that come with the package, by family name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instructrec_deploy.core.errors import FamilyUnknown
from instructrec_deploy.core.wordings import LANGUAGES, find_family

INSTRUCTIONS_FROM = "instructions_from"


def with_families(raw: Any) -> Any:
    """A parsed recipe with the words in place of the families' names.

    Raises:
        ValueError: a family is unknown; all faults at once, with their key paths.
    """
    tasks = raw.get("tasks") if isinstance(raw, Mapping) else None
    if not isinstance(tasks, Mapping):
        return raw
    found, faults = {}, []
    for name, task in tasks.items():
        try:
            found[name] = _resolved(task)
        except FamilyUnknown as error:
            faults.append(f"tasks.{name}.{INSTRUCTIONS_FROM}: {error.message} ({error.hint})")
    if faults:
        raise ValueError("; ".join(faults))
    return {**raw, "tasks": found}


def _resolved(task: Any) -> Any:
    """One task. Keys that the recipe gives itself stand; the family fills in the others.

    "emotion" takes both languages, "emotion.en" one. The label descriptions are those of the task's
    `lang`, for the labels it names (for all that the family knows where it names none).
    """
    if not isinstance(task, Mapping) or INSTRUCTIONS_FROM not in task:
        return task
    own = {key: value for key, value in task.items() if key != INSTRUCTIONS_FROM}
    name, _, lang = str(task[INSTRUCTIONS_FROM]).partition(".")
    family = find_family(name)
    parts = {code: family.wordings(code) for code in ([lang] if lang else LANGUAGES)}
    main = lang or str(task.get("lang", LANGUAGES[0]))
    words = parts[main].descriptions if main in parts else {}
    labels = own.get("labels") or words
    return {
        "kind": family.kind.value,
        "lang": main,
        "instructions": {code: list(part.wordings) for code, part in parts.items()},
        "held_out": {code: part.held_out for code, part in parts.items()},
        "descriptions": {label: words[label] for label in labels if label in words},
    } | own
