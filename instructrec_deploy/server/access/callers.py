"""Who calls, and what a caller may ask."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from instructrec_deploy.core.errors import Denied
from instructrec_deploy.core.request import Question, Request
from instructrec_deploy.server.access.keys import Role

# What a method asks of a caller; a method that is not here only asks that the caller is known.
ROLE_OF: dict[str, Role] = {
    "Predict": "predict",
    "PredictBatch": "predict",
    "PredictStream": "predict",
    "PrepareInstruction": "predict",
    "ModelInfer": "predict",
    "Feedback": "feedback",
    "SwapModel": "admin",
    "Metrics": "admin",  # of the HTTP door: it names all models and tasks
}


BURST_S = 10.0  # of the rate: the burst where none is set


@dataclass(frozen=True, slots=True)
class Quota:
    """Tokens a second over time, and at most at once."""

    tokens_per_s: float  # 0.0: as much as it likes
    burst_tokens: float = 0.0  # 0.0: `BURST_S` of the rate

    @property
    def size(self) -> float:
        """Tokens of a full bucket."""
        return self.burst_tokens or BURST_S * self.tokens_per_s


@dataclass(frozen=True, slots=True)
class Caller:
    """A known caller, or anyone where nobody has to be known."""

    id: str = ""  # of its key; "" without one
    name: str = ""
    roles: tuple[Role, ...] = ("predict", "feedback", "admin")
    tasks: tuple[str, ...] | None = None  # None: all, and instructions of its own
    models: tuple[str, ...] | None = None  # None: all
    quota: Quota | None = None  # of its key; None: that of all
    share: float = 1.0  # of the workers, where several tenants wait

    def check_method(self, method: str) -> None:
        """Refuse a method that its roles do not cover; an admin's cover all.

        Raises:
            Denied: they do not.
        """
        role = ROLE_OF.get(method)
        if role is not None and role not in self.roles and "admin" not in self.roles:
            raise Denied(
                f"{method} needs the role {role}, which this caller does not have",
                hint="ask the operator for a key with it",
            )

    def opens(self, model: str) -> bool:
        """Whether it may ask that model."""
        return self.models is None or model in self.models

    def check_model(self, model: str) -> None:
        """Refuse a model that the key does not open.

        Raises:
            Denied: it does not.
        """
        if not self.opens(model):
            raise Denied(
                "this key is not for that model",
                hint=f"its models are {', '.join(self.models or ())}: name one of them",
            )

    def sign(self, request: Request) -> Request:
        """The request with who asks in it, if this caller may ask it.

        Raises:
            Denied: it may not.
        """
        self.check_questions(request.questions)
        return replace(request, tenant=self.name, share=self.share) if self.name else request

    def check_questions(self, questions: Iterable[Question]) -> None:
        """Refuse what a key for some tasks does not open.

        Raises:
            Denied: another task, an instruction of its own, or a prepared one.
        """
        if self.tasks is None:
            return
        asked = tuple(questions)
        if not asked or any(q.instruction or q.prepared_id or not q.task for q in asked):
            raise Denied(
                "this key is for tasks of the bundle alone, each named in the request",
                hint=f"ask by task: {', '.join(self.tasks)}",
            )
        for question in asked:
            self.check_task(question.task)

    def check_task(self, task: str) -> None:
        """Refuse a task that the key does not open.

        Raises:
            Denied: it does not.
        """
        if self.tasks is not None and task not in self.tasks:
            raise Denied(
                "this key is not for that task", hint=f"its tasks are {', '.join(self.tasks)}"
            )


ANYONE = Caller()  # of this machine, where nobody has to be known
STRANGER = Caller(roles=("predict", "feedback"))  # the same of the network
