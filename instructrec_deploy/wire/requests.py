"""Requests on the wire: questions, instructions, single texts and batches, both directions.

Only reading checks: a client must not refuse what a server with other limits would accept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

from google.protobuf.message import DecodeError, Message

from instructrec_deploy.core.decision import PLAIN, Decision, as_decision
from instructrec_deploy.core.errors import (
    DecisionInvalid,
    InstructRecError,
    RequestError,
    TextUndecodable,
)
from instructrec_deploy.core.instruction import (
    MAX_CANDIDATES,
    Candidate,
    Instruction,
    check_count,
)
from instructrec_deploy.core.request import MAX_TEXT_CHARS, Mark, Question, Request, as_mark
from instructrec_deploy.core.status import Limits
from instructrec_deploy.core.task import SHAPES, Shape, TaskKind
from instructrec_deploy.pb.v1 import instructrec_pb2 as pb

SERVICE = "instructrec.v1.InstructRec"
DEFAULT_TOP_K = 5
DEFAULT_LIMITS = Limits(
    max_text_chars=MAX_TEXT_CHARS, max_candidates=MAX_CANDIDATES, max_batch_items=256
)
DEFAULT_QUESTIONS = (Question(),)
MessageT = TypeVar("MessageT", bound=Message)


def method_path(name: str) -> str:
    """The path of a method on the wire."""
    return f"/{SERVICE}/{name}"


def parse(kind: type[MessageT], data: bytes) -> MessageT:
    """Bytes as a message.

    Raises:
        TextUndecodable: not a message of that kind, or a string in it is not UTF-8.
    """
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise TextUndecodable(
            f"the bytes are not a valid {kind.DESCRIPTOR.name}, or a string in it is not UTF-8",
            hint="encode texts as UTF-8 and build the message from instructrec.proto",
        ) from error


class ReadInstruction(Protocol):
    """How an inline instruction is read: `read_instruction`, or what stands before it."""

    def __call__(self, message: pb.Instruction, limits: Limits) -> Instruction: ...


class Lend(Protocol):
    """A bundle's task as an instruction, in the caller's words or with the caller's candidates."""

    def __call__(self, task: str, words: str, candidates: Sequence[Candidate]) -> Instruction: ...


def read_instruction(
    message: pb.Instruction, limits: Limits = DEFAULT_LIMITS, lend: Lend | None = None
) -> Instruction:
    """An inline instruction, checked; `lend` fills in what it leaves to a task that it names.

    Raises:
        RequestError: what `Instruction.of` and `Decision.of` raise, or an unknown or unserved kind.
        TaskUnknown: it names a task that is not there.
    """
    candidates = [Candidate(c.label, c.description, c.prior) for c in message.candidates]
    decision = _read_decision(message)
    is_lent = message.task or (decision is not PLAIN and not message.text and not candidates)
    if lend is not None and is_lent:
        check_count(len(candidates), limits.max_candidates)
        return lend(message.task, message.text, candidates).with_decision(decision)
    return Instruction.of(
        message.text,
        candidates,
        kind=_read_kind(message.kind),
        task=message.task,
        max_candidates=limits.max_candidates,
        decision=PLAIN.changed(decision),
    )


def read_questions(
    messages: Sequence[pb.Question],
    limits: Limits = DEFAULT_LIMITS,
    read: ReadInstruction = read_instruction,
) -> tuple[Question, ...]:
    """Questions; none: the default task."""
    if not messages:
        return DEFAULT_QUESTIONS
    return tuple(_read_question(message, limits, read) for message in messages)


def read_request(
    message: pb.PredictRequest,
    limits: Limits = DEFAULT_LIMITS,
    read: ReadInstruction = read_instruction,
    *,
    fallback: tuple[Question, ...] = DEFAULT_QUESTIONS,
) -> Request:
    """One text and its questions, checked; `fallback` is asked where it brings none.

    Raises:
        RequestError: what `Request.of` and `Instruction.of` raise.
    """
    questions = message.questions
    return Request.of(
        message.text,
        read_questions(questions, limits, read) if questions else fallback,
        id=message.id,
        top_k=message.top_k if message.HasField("top_k") else DEFAULT_TOP_K,
        text2=message.text2,
        head=_read_mark(message.head) if message.HasField("head") else None,
        tail=_read_mark(message.tail) if message.HasField("tail") else None,
        explain=message.explain,
        max_text_chars=limits.max_text_chars,
    )


def read_batch(
    message: pb.PredictBatchRequest | pb.PredictStreamRequest,
    limits: Limits = DEFAULT_LIMITS,
    read: ReadInstruction = read_instruction,
) -> list[Request | InstructRecError]:
    """The requests of a batch in order; a bad one is its error, and does not sink the others.

    Raises:
        RequestError: no items, more than the limit, or the batch's own questions are unusable.
    """
    check_items(len(message.requests), limits)
    fallback = read_questions(message.questions, limits, read)
    items: list[Request | InstructRecError] = []
    for item in message.requests:
        try:
            items.append(read_request(item, limits, read, fallback=fallback))
        except InstructRecError as error:
            items.append(error)
    return items


def check_items(n_items: int, limits: Limits) -> None:
    """Refuse a batch of no texts, or of more than the limit.

    Raises:
        RequestError: as that says.
    """
    if not 0 < n_items <= limits.max_batch_items:
        raise RequestError(
            f"{n_items} texts in one batch, allowed are 1 to {limits.max_batch_items}",
            hint="split the batch",
        )


def read_prepare(
    message: pb.PrepareInstructionRequest,
    limits: Limits = DEFAULT_LIMITS,
    read: ReadInstruction = read_instruction,
) -> Question:
    """What is to be prepared: an instruction, or a task ("" = the default one)."""
    if message.HasField("instruction"):
        return Question(instruction=read(message.instruction, limits))
    return Question(task=message.task)


def _read_mark(message: pb.Mark) -> Mark:
    return Mark(message.start, message.end)


def _read_question(message: pb.Question, limits: Limits, read: ReadInstruction) -> Question:
    if message.HasField("instruction"):
        return Question(instruction=read(message.instruction, limits))
    return Question(task=message.task, prepared_id=message.prepared_id)


def _read_decision(message: pb.Instruction) -> Decision:
    threshold = message.threshold if message.HasField("threshold") else None
    return as_decision(message.decision, threshold, message.none_label)


def _read_kind(word: str) -> TaskKind:
    try:
        kind = TaskKind(word or TaskKind.CLASSIFICATION)
    except ValueError:
        kind = None
    if kind is None or SHAPES[kind] is Shape.GENERATE:
        served = ", ".join(k for k, shape in SHAPES.items() if shape is not Shape.GENERATE)
        raise RequestError(
            "the instruction's kind is unknown" if kind is None else f"{kind} is not served yet",
            hint=f"use one of: {served}",
        )
    return kind


def write_instruction(instruction: Instruction) -> pb.Instruction:
    """An instruction with its candidates.

    Its temperature and, where it names a task, the weight of its priors stay behind: they are the
    bundle's. Without a task the weight goes into the priors.

    Raises:
        DecisionInvalid: its decision has parts that no request carries.
    """
    decision = instruction.decision
    if not (decision.is_plain or decision.is_sendable):
        raise DecisionInvalid(
            "this decision has rules or learned parts, which a request cannot carry to a server",
            hint="name the task whose tasks.toml has them, or predict in process",
        )
    weight = 1.0 if instruction.task else instruction.prior_weight
    return pb.Instruction(
        text=instruction.text,
        candidates=[
            pb.Candidate(label=c.label, description=c.description, prior=weight * c.prior)
            for c in instruction.candidates
        ],
        kind="" if instruction.kind is TaskKind.CLASSIFICATION else instruction.kind.value,
        task=instruction.task,
        decision=decision.kind if decision is not PLAIN else "",
        threshold=decision.threshold,
        none_label=decision.none_label,
    )


def write_request(request: Request) -> pb.PredictRequest:
    """One text and its questions.

    Raises:
        TextUndecodable: a string has lone surrogates, which UTF-8 cannot hold.
        MarkInvalid: a mark is no pair of positions.
    """
    try:
        return _write_request(request, request.questions)
    except UnicodeEncodeError as error:
        raise _not_utf8() from error


def write_batch_request(requests: Sequence[Request]) -> pb.PredictBatchRequest:
    """Many texts in one message; questions that all of them share are sent once.

    Raises:
        TextUndecodable: as `write_request`.
    """
    shared = requests[0].questions if requests else DEFAULT_QUESTIONS
    if any(request.questions != shared for request in requests):
        return pb.PredictBatchRequest(requests=map(write_request, requests))
    try:
        return pb.PredictBatchRequest(
            requests=[_write_request(request, DEFAULT_QUESTIONS) for request in requests],
            questions=_write_questions(shared),
        )
    except UnicodeEncodeError as error:
        raise _not_utf8() from error


def write_stream_request(requests: Sequence[Request]) -> pb.PredictStreamRequest:
    """Some requests of a stream, as `write_batch_request` writes a batch.

    Raises:
        TextUndecodable: as `write_request`.
    """
    batch = write_batch_request(requests)
    return pb.PredictStreamRequest(requests=batch.requests, questions=batch.questions)


def write_prepare_request(question: Question) -> pb.PrepareInstructionRequest:
    """An instruction or a task to prepare."""
    try:
        if question.instruction is None:
            return pb.PrepareInstructionRequest(task=question.task)
        return pb.PrepareInstructionRequest(instruction=write_instruction(question.instruction))
    except UnicodeEncodeError as error:
        raise _not_utf8() from error


def write_question(question: Question) -> pb.Question:
    """One question."""
    if question.instruction is not None:
        return pb.Question(instruction=write_instruction(question.instruction))
    if question.prepared_id:
        return pb.Question(prepared_id=question.prepared_id)
    return pb.Question(task=question.task)


def _write_request(request: Request, questions: Sequence[Question]) -> pb.PredictRequest:
    return pb.PredictRequest(
        text=request.text,
        questions=_write_questions(questions),
        id=request.id,
        top_k=request.top_k,
        text2=request.text2,
        head=_write_mark(request.head, "head"),
        tail=_write_mark(request.tail, "tail"),
        explain=request.explain,
    )


def _write_questions(questions: Sequence[Question]) -> Iterable[pb.Question]:
    return () if questions == DEFAULT_QUESTIONS else map(write_question, questions)


def _write_mark(mark: Mark | None, name: str) -> pb.Mark | None:
    found = as_mark(mark, name)  # an unsigned number has no room for what is no position
    return None if found is None else pb.Mark(start=found.start, end=found.end)


def _not_utf8() -> TextUndecodable:
    return TextUndecodable(
        "a string has lone surrogates, which are not Unicode text",
        hint="decode the bytes with errors='replace' before sending them",
    )
