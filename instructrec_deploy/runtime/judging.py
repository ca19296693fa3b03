"""Content heads: what the policy asks a model about a text that is encoded."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from instructrec_deploy.core.bundle import Bundle
from instructrec_deploy.core.errors import BundleError, InstructRecError
from instructrec_deploy.core.instruction import Instruction
from instructrec_deploy.core.task import TaskKind
from instructrec_deploy.runtime.jobs import Job
from instructrec_deploy.safety.guard import Guard
from instructrec_deploy.safety.policy import Policy
from instructrec_deploy.tasks.base import Floats
from instructrec_deploy.tasks.classify import decode_answers

# For a task and rows of the encoding: its instruction, and logits [N, C].
Score = Callable[[str, list[int]], tuple[Instruction, Floats]]


def judge(jobs: Sequence[Job], first_rows: Sequence[int], score: Score) -> None:
    """Have each job's heads score its text; what they find stands in its first verdict.

    A head that cannot score counts as a check that broke.

    Args:
        jobs: read and encoded.
        first_rows: for each job the row of the encoding that its text is in.
    """
    wanted: dict[str, list[int]] = {}
    for place, job in enumerate(jobs):
        for task in dict.fromkeys(head.asked(name) for name, head in job.heads.items()):
            wanted.setdefault(task, []).append(place)
    scores: list[dict[str, float | None]] = [{} for _ in jobs]
    for task, places in wanted.items():
        found = _probabilities(task, [first_rows[place] for place in places], score)
        for row, place in enumerate(places):
            for name, head in jobs[place].heads.items():
                if head.asked(name) == task:
                    scores[place][name] = found[row].get(head.label) if found else None
    for job, found_scores in zip(jobs, scores, strict=True):
        if found_scores and isinstance(job.guarded_by, Guard):
            verdict = job.guarded_by.judged(job.verdicts[0], found_scores)
            job.verdicts = (verdict, *job.verdicts[1:])


def _probabilities(task: str, rows: list[int], score: Score) -> list[dict[str, float]]:
    """For each row the probability of each label; nothing where the task cannot be asked."""
    try:
        instruction, logits = score(task, rows)
        answers = decode_answers(
            logits,
            instruction.labels,
            temperature=instruction.temperature,
            top_ks=[0] * len(rows),
            decision=instruction.decision,
        )
    except InstructRecError:
        return []
    return [{one.label: one.score for one in answer.scores} for answer in answers]


def check_heads(policy: Policy, bundle: Bundle, *, where: str) -> None:
    """See that the bundle has what the policy's heads and its entities name.

    Raises:
        BundleError: a task or a label that it does not have; all are named.
    """
    faults = []
    for part in policy.parts():
        for name, head in part.input.heads.items():
            task = head.asked(name)
            spec = bundle.tasks.tasks.get(task)
            if spec is None:
                faults.append(f"no task {task!r}")
            elif head.label not in spec.labels:
                faults.append(f"task {task!r} has no label {head.label!r}")
        for task, finder in part.input.entities.items():
            spec = bundle.tasks.tasks.get(task)
            if spec is None:
                faults.append(f"no task {task!r}")
            elif spec.kind is not TaskKind.NER:
                faults.append(f"task {task!r} finds no entities")
            else:
                unknown = sorted(set(finder.types) - set(spec.labels))
                faults += [f"task {task!r} has no label {label!r}" for label in unknown]
    if faults:
        raise BundleError(
            f"{where} asks what the bundle does not have: {'; '.join(dict.fromkeys(faults))}",
            hint=f"its tasks: {', '.join(sorted(bundle.tasks.tasks)) or 'none'}",
        )
