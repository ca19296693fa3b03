"""What `predict`, `evaluate` and `bench` share: what is asked, and whom (this process or a server).

An asker answers requests in order, with a prediction or an error for each.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from instructrec_deploy.core.bundle import Bundle, open_bundle
from instructrec_deploy.core.decision import PLAIN, Decision, as_decision
from instructrec_deploy.core.errors import (
    ConfigError,
    DecisionInvalid,
    InstructRecError,
    TaskUnknown,
)
from instructrec_deploy.core.instruction import Candidate, Instruction
from instructrec_deploy.core.request import MarkLike, Question, Request
from instructrec_deploy.core.result import Prediction
from instructrec_deploy.core.task import SHAPES, Shape, TaskKind, parse_kind

Outcome = Prediction | InstructRecError
TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What the user wants to know, as it stands on the command line or in a JSON line."""

    instruction: str = ""
    candidates: tuple[str | Candidate, ...] = ()
    task: str = ""
    prepared_id: str = ""
    decision: str = ""
    threshold: float | None = None
    none_label: str = ""
    kind: str = ""  # of a question without a task: a word of TaskKind

    @property
    def change(self) -> Decision:
        """What is said about the decision; PLAIN where nothing is."""
        return as_decision(self.decision, self.threshold, self.none_label)


class KnownTask(NamedTuple):
    """A task that somebody answers."""

    name: str
    kind: TaskKind
    is_default: bool


class Asker(Protocol):
    """Somebody who answers."""

    def ask(self, requests: Sequence[Request]) -> list[Outcome]:
        """One prediction or error for each request, in order."""

    def own_question(self, asked: Asked) -> Question:
        """A question with an instruction, candidates, or both of the user's own.

        What is missing of the two comes from the task (the default one where none is named).
        """

    def tasks(self) -> list[KnownTask]:
        """The tasks that it answers."""

    def fixed(self, question: Question) -> Question:
        """The same question in the form that is cheapest to ask many times."""

    def close(self) -> None:
        """Give back what it holds."""


def make_question(asked: Asked, asker: Asker) -> Question:
    """The question behind what was asked.

    Raises:
        InstructionMissing: candidates alone, and no task to take the wording from.
        RequestError, TaskUnknown: the instruction or its candidates are unusable.
    """
    if asked.prepared_id:
        if asked.change is not PLAIN:
            raise DecisionInvalid(
                "prepared_id came together with a decision",
                hint="a prepared instruction has its own: prepare it with that decision",
            )
        return Question(prepared_id=asked.prepared_id)
    if asked.candidates or asked.instruction or asked.change is not PLAIN:
        return asker.own_question(asked)
    return Question(task=asked.task)


def ask_all(asker: Asker, items: Sequence[Request | InstructRecError]) -> list[Outcome]:
    """Ask the requests together; an item that is an error already stays where it stands."""
    answers = iter(asker.ask([item for item in items if isinstance(item, Request)]))
    return [next(answers) if isinstance(item, Request) else item for item in items]


def make_request(
    text: str,
    question: Question,
    *,
    id: str = "",
    top_k: int = 5,
    text2: str = "",
    head: MarkLike | None = None,
    tail: MarkLike | None = None,
    explain: bool = False,
) -> Request | InstructRecError:
    """A request, or why there is none."""
    given: dict[str, Any] = {"text2": text2, "head": head, "tail": tail, "explain": explain}
    try:
        return Request.of(text, (question,), id=id, top_k=top_k, **given)
    except InstructRecError as error:
        return error


def split_candidates(words: Sequence[str], joined: str) -> tuple[str, ...]:
    """Candidates of repeated `--candidate` and of one `--candidates a,b,c` (，and 、 split too)."""
    listed = joined.replace("，", ",").replace("、", ",").split(",") if joined else []
    return (*words, *(word.strip() for word in listed if word.strip()))


@contextmanager
def open_asker(
    bundle: Path | None,
    address: str,
    *,
    is_unary: bool = False,
    timeout_s: float = TIMEOUT_S,
    model: str = "",
) -> Iterator[Asker]:
    """An asker for the server at `address`, else for the bundle in this process.

    `model`: which of the server's; "": its default one.

    Raises:
        ConfigError: neither is named.
    """
    asker: Asker
    if address:
        from instructrec_deploy.cli.remote_asker import RemoteAsker

        known = open_bundle(bundle) if bundle else None
        asker = RemoteAsker(address, known, is_unary=is_unary, timeout_s=timeout_s, model=model)
    elif bundle:
        asker = LocalAsker(open_bundle(bundle))
    else:
        raise ConfigError(
            "whom to ask?", hint="name a bundle folder, or a server by --address HOST:PORT"
        )
    try:
        yield asker
    finally:
        asker.close()


class LocalAsker:
    """The bundle's engine in this process."""

    def __init__(self, bundle: Bundle) -> None:
        from instructrec_deploy.runtime.predictor import Predictor

        self._bundle = bundle
        self._predictor = Predictor(bundle)

    def ask(self, requests: Sequence[Request]) -> list[Outcome]:
        """See `Asker`."""
        if not requests:
            return []
        return list(self._predictor.predict_requests(requests))

    def own_question(self, asked: Asked) -> Question:
        """See `Asker`."""
        return bundle_question(self._bundle, asked)

    def tasks(self) -> list[KnownTask]:
        """See `Asker`."""
        book = self._bundle.tasks
        return [
            KnownTask(name, spec.kind, name == book.default_task)
            for name, spec in book.tasks.items()
        ]

    def fixed(self, question: Question) -> Question:
        """See `Asker`: in process, the instruction is cached by its content."""
        return question

    def close(self) -> None:
        """See `Asker`."""
        self._predictor.close()


def free_question(asked: Asked) -> Question:
    """A question with an instruction and candidates, of no task."""
    instruction = Instruction.of(
        asked.instruction,
        asked.candidates,
        kind=parse_kind(asked.kind) if asked.kind else TaskKind.CLASSIFICATION,
        decision=PLAIN.changed(asked.change),
    )
    return Question(instruction=instruction)


def with_task_of_kind(asked: Asked, asker: Asker) -> Asked:
    """What is asked, by the task of the kind it names, where the default task answers otherwise.

    Args:
        asked: left as it is where it names a task, or brings instruction and candidates.
        asker: whose tasks are meant.

    Raises:
        TaskUnknown: no task is of that kind, or several are.
    """
    if not asked.kind or asked.task or (asked.instruction and asked.candidates):
        return asked
    kind, known = parse_kind(asked.kind), asker.tasks()
    if any(task.is_default and _answer_alike(task.kind, kind) for task in known):
        return asked
    fitting = [task.name for task in known if task.kind is kind]
    if not fitting:
        raise TaskUnknown(
            f"no task is of kind {kind}", hint="name one by --task, or send --candidates, too"
        )
    if len(fitting) > 1:
        raise TaskUnknown(
            f"several tasks are of kind {kind}: {', '.join(fitting)}", hint="name one by --task"
        )
    return replace(asked, task=fitting[0])


def _answer_alike(one: TaskKind, other: TaskKind) -> bool:
    """Labels stand for labels; spans and rankings each for their own kind."""
    ranked = TaskKind.RANKING in (one, other)
    return one is other or (SHAPES[one] is SHAPES[other] is Shape.CLASSIFY and not ranked)


def bundle_question(bundle: Bundle, asked: Asked) -> Question:
    """A question of the user's own, completed by a task of the bundle."""
    from instructrec_deploy.runtime.predictor import question_of

    has_both = asked.instruction and asked.candidates
    if has_both and asked.kind and not asked.task:
        return free_question(asked)
    return question_of(
        bundle,
        instruction=asked.instruction or None,
        candidates=asked.candidates or None,
        task=asked.task or ("" if has_both else bundle.tasks.default_task),
        decision=asked.change,
    )
