"""What loose arguments ask: the one place that knows which of them go together."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from instructrec_deploy.core.decision import PLAIN, Decision, as_decision
from instructrec_deploy.core.errors import RequestError
from instructrec_deploy.core.instruction import Candidate, Instruction, as_candidates
from instructrec_deploy.core.request import Question


@dataclass(frozen=True, slots=True)
class LooseQuestion:
    """An instruction's words, candidates, or both; a task completes what is missing.

    None: not given, which is another thing than an empty list.
    """

    words: str | None = None
    candidates: tuple[Candidate, ...] | None = None
    task: str = ""
    change: Decision = PLAIN  # what is said about the decision

    def as_question(self) -> Question:
        """For a server, which completes it and checks it."""
        words, given = self.words or "", self.candidates or ()
        return Question(instruction=Instruction(words, given, task=self.task, decision=self.change))


def read_question(
    *,
    instruction: str | Instruction | None = None,
    candidates: Iterable[str | Candidate] | None = None,
    task: str = "",
    prepared_id: str = "",
    decision: str | Decision = "",
    threshold: float | None = None,
    none_label: str = "",
) -> Question | LooseQuestion:
    """A question that is complete, or the parts of one.

    Raises:
        RequestError: two ways of asking at once, or a string in place of a list of candidates.
        DecisionInvalid: a decision that is none, or does not fit a whole instruction's candidates.
    """
    change = as_decision(decision, threshold, none_label)
    has_own = instruction is not None or candidates is not None or change is not PLAIN
    if prepared_id:
        if has_own or task:
            raise RequestError(
                "prepared_id came together with another way of asking",
                hint="it stands for instruction and candidates: send it alone",
            )
        return Question(prepared_id=prepared_id)
    if isinstance(instruction, Instruction):
        if candidates is not None or task:
            raise RequestError(
                "an Instruction came together with candidates or a task",
                hint="an Instruction has its candidates: give it alone",
            )
        return Question(instruction=instruction.with_decision(change))
    if not has_own:
        return Question(task=task)
    given = None if candidates is None else as_candidates(candidates)
    return LooseQuestion(instruction, given, task, change)
