"""Names in texts: what a policy asks a model to find before a text is read for its answer.

The model reads each text once more, for this alone: what is masked must be gone before the text is
read, or kept.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from instructrec_deploy.core.errors import InstructRecError
from instructrec_deploy.core.result import Finding, Span
from instructrec_deploy.runtime.jobs import Job
from instructrec_deploy.safety.guard import BROKEN_CHECK, Guard, Named
from instructrec_deploy.safety.match import Match
from instructrec_deploy.safety.policy import PERSONAL_TYPES

RULE = "task "  # then the task's name: the rule of what a model found
# For a task and texts: the entities of each.
Find = Callable[[str, list[str]], Sequence[Sequence[Span]]]


def name_entities(jobs: Sequence[Job], find: Find) -> None:
    """Have jobs' texts searched as their policy asks; what is found is masked or blocked there.

    A task that cannot be asked counts as a check that broke.

    Args:
        jobs: guarded by rules. One that is blocked is searched only where a person is to see it.
        find: asks the model.
    """
    asked = [
        (job, job.guarded_by)
        for job in jobs
        if isinstance(job.guarded_by, Guard)
        and job.seeks_names
        and (not job.is_blocked or any(verdict.review for verdict in job.verdicts))
    ]
    texts: dict[tuple[str, Guard], None] = {}  # equal ones are read once
    for job, guard in asked:
        texts |= {(text, guard): None for text in (job.request.text, job.request.text2) if text}
    found = dict(zip(texts, find_named([*texts], find), strict=True))
    for job, guard in asked:
        job.name([found.get((text, guard), ()) for text in (job.request.text, job.request.text2)])


def find_named(texts: Sequence[tuple[str, Guard]], find: Find) -> list[Named]:
    """What the model finds in each text of what its policy asks for; None where that broke."""
    wanted: dict[str, list[int]] = {}
    finders = [guard.finders(text) for text, guard in texts]
    for place, asked in enumerate(finders):
        for task in asked:
            wanted.setdefault(task, []).append(place)
    found: list[list[Match]] = [[] for _ in texts]
    broken: set[int] = set()
    for task, places in wanted.items():
        try:
            spans = find(task, [texts[place][0] for place in places])
        except InstructRecError:
            broken.update(places)
            continue
        for place, own in zip(places, spans, strict=True):
            types = finders[place][task].types
            found[place] += [
                Match(types[span.label], RULE + task, span.start, span.end, score=span.score)
                for span in own
                if span.label in types
            ]
    return [None if place in broken else own for place, own in enumerate(found)]


def named_in(findings: Sequence[Finding]) -> Named:
    """What a model had found, of what a verdict tells; None where a check broke."""
    if any(one.category == BROKEN_CHECK for one in findings):
        return None
    return [
        Match(one.category, one.rule, one.start, one.end, score=one.score)
        for one in findings
        if one.rule.startswith(RULE) and one.category in PERSONAL_TYPES
    ]
