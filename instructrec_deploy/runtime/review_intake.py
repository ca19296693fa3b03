"""From an answered request to the cases that a person is to look at, fit to be kept."""

from __future__ import annotations

from collections.abc import Iterator

from instructrec_deploy.core.request import Request
from instructrec_deploy.core.result import Finding, Prediction, Verdict
from instructrec_deploy.runtime.jobs import GuardLike
from instructrec_deploy.runtime.naming import named_in
from instructrec_deploy.runtime.review_store import Case
from instructrec_deploy.safety.guard import GuardedText
from instructrec_deploy.safety.guards import PolicyGuards


def cases_of(request: Request, prediction: Prediction, guard: GuardLike | None) -> Iterator[Case]:
    """A case for each verdict with a finding that waits for a person.

    Its text is masked as the policy says, in a dry run and where the text was blocked, too. Where
    there is no policy to mask by, or masking breaks, the case has no text.
    """
    tasks = tuple(dict.fromkeys(answer.task for answer in prediction.answers))
    told = {verdict.direction: verdict.findings for verdict in prediction.verdicts}
    for verdict in prediction.verdicts:
        if not verdict.review:
            continue
        is_second = verdict.direction == "text2"
        text = request.text2 if is_second else request.text
        guarded = None
        if isinstance(guard, PolicyGuards):
            reading = guard.reading(tasks, request.tenant)
            # A case of an answer holds the text, too: its names are in the text's own verdict.
            has_names = bool(reading.policy.input.entities)
            named = named_in(told.get("text2" if is_second else "input", ())) if has_names else ()
            guarded = reading.check_named(text, named)
        yield Case(
            text=guarded.text if guarded else "",
            categories=tuple(sorted({finding.category for finding in verdict.findings})),
            findings=tuple(f.to_dict() for f in _moved(verdict, guarded)),
            direction=verdict.direction,
            action=verdict.action,
            dry_run_action=verdict.dry_run_action,
            policy_version=verdict.policy_version,
            tasks=tasks,
            caller=request.tenant,
            model=prediction.model,
            model_version=prediction.model_version,
            labels=tuple(answer.label for answer in prediction.answers if not answer.spans),
        )


def _moved(verdict: Verdict, guarded: GuardedText | None) -> list[Finding]:
    """The findings with spans into the masked text; of labels, and without a text, none."""
    found = []
    for finding in verdict.findings:
        start, end = -1, -1
        if guarded and guarded.text and verdict.direction != "output" and finding.start >= 0:
            start, end = guarded.span(finding.start, finding.end)
        found.append(finding._replace(start=start, end=end, stand_in=""))
    return found
