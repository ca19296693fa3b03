"""The files of a bundle that people and programs read: `bundle.json` and `tasks.toml`."""

from __future__ import annotations

import tomllib
from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from instructrec_deploy.core.errors import BundleError, InstructRecError
from instructrec_deploy.core.instruction import Candidate, Instruction
from instructrec_deploy.core.task import TaskKind

FORMAT_VERSION = 1
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ModelKind = Literal["instruction-encoder", "sequence-classification"]
Precision = Literal["fp32", "int8"]
ModelT = TypeVar("ModelT", bound=BaseModel)


class Strict(BaseModel):
    """Base of every file at the border: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(Strict):
    """A file of the bundle as it was packed."""

    size_bytes: int = Field(ge=0)
    sha256: Sha256


class ModelSection(Strict):
    """What the graphs are and how a text reaches them."""

    kind: ModelKind
    precision: Precision
    hidden_size: int = Field(gt=0)
    max_tokens: int = Field(gt=2)  # window, control tokens included
    pad_id: int = Field(ge=0)
    text_prefix: str = ""  # e5 wants "query: " before each text
    instruction_weight: float = Field(1.0, ge=0.0, le=1.0)  # of an instruction token in pooling
    has_fusion: bool = False  # graphs/fusion.onnx takes part in the score
    score_scale: float = Field(1.0, gt=0.0)  # multiplies the cosine (1 / temperature of the loss)
    base: str = ""  # what it was tuned from
    n_parameters: int = Field(0, ge=0)


class Manifest(Strict):
    """`bundle.json`."""

    format_version: int
    name: str = Field(min_length=1)
    version: str = Field(min_length=1)  # content hash of the graphs and tasks, 12 hex digits
    created: str  # ISO 8601, UTC
    model: ModelSection
    score_tolerance: float = Field(gt=0.0)  # golden scores must be this near on any machine
    parent_sha256: str = ""  # of the checkpoint's weights
    files: dict[str, FileEntry]  # every file but bundle.json itself, by its path in the bundle


class TaskSpec(Strict):
    """One task of `tasks.toml`: instructions by language, labels, calibration."""

    kind: TaskKind = TaskKind.CLASSIFICATION
    labels: tuple[str, ...] = ()
    descriptions: dict[str, str] = Field(default_factory=dict)  # label -> what the model reads
    instructions: dict[str, tuple[str, ...]] = Field(default_factory=dict)  # lang -> wordings
    lang: str = "en"  # whose first wording is the default
    temperature: float = Field(1.0, gt=0.0)
    threshold: float = Field(0.5, gt=0.0, lt=1.0)  # least score of a span that is found

    def wording(self) -> str:
        """The default wording of the instruction; "" where there is none."""
        wordings = self.instructions.get(self.lang) or next(iter(self.instructions.values()), ())
        return wordings[0] if wordings else ""

    def instruction(self, name: str, text: str = "") -> Instruction:
        """The task as an instruction, in its default wording unless `text` is given."""
        return Instruction.of(
            text or self.wording(),
            [Candidate(label, self.descriptions.get(label, "")) for label in self.labels],
            kind=self.kind,
            temperature=self.temperature,
            task=name,
        )


class TaskBook(Strict):
    """`tasks.toml`: the tasks a bundle answers without being told labels."""

    default_task: str = ""
    tasks: dict[str, TaskSpec] = Field(default_factory=dict)


def parse_toml(
    model: type[ModelT], text: str, *, where: str, error: type[InstructRecError] = BundleError
) -> ModelT:
    """Parse TOML into a model; all faults are reported at once, with their key paths."""
    try:
        return model.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as fault:
        raise error(f"{where}: not valid TOML: {fault}", hint="mend the syntax") from fault
    except ValidationError as fault:
        raise error(f"{where}: {describe_faults(fault)}", hint="mend the keys named") from fault


def describe_faults(error: ValidationError) -> str:
    """All faults in one line each, without the input's values."""
    lines = [
        f"{'.'.join(str(part) for part in fault['loc']) or '(top)'}: {fault['msg']}"
        for fault in error.errors(include_input=False, include_url=False)
    ]
    return "; ".join(lines)
