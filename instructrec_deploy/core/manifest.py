"""The files of a bundle that people and programs read: `bundle.json` and `tasks.toml`."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from statistics import median_low
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    ValidationError,
    model_serializer,
    model_validator,
)

from instructrec_deploy.core.decision import (
    DEFAULT_THRESHOLD,
    Decision,
    DecisionKind,
    RuleFaults,
    freeze_types,
)
from instructrec_deploy.core.errors import BundleError, InstructRecError, LabelMissing
from instructrec_deploy.core.instruction import MAX_PRIOR, Candidate, Instruction
from instructrec_deploy.core.near import did_you_mean
from instructrec_deploy.core.task import SCORED_KINDS, TaskKind

FORMAT_VERSION = 1
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
ModelKind = Literal[
    "instruction-encoder", "sequence-classification", "token-classification", "question-answering"
]
GeneratorKind = Literal["seq2seq", "causal"]  # models that write text
# Hugging Face heads that find spans, and the one kind of task that each answers.
SPAN_HEADS: dict[str, TaskKind] = {
    "token-classification": TaskKind.NER,
    "question-answering": TaskKind.QA,
}
Precision = Literal["fp32", "fp16", "int8", "int8-weights", "int4-weights"]
WEIGHT_BITS: dict[Precision, int] = {"int8-weights": 8, "int4-weights": 4}  # activations: floats
Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Prior = Annotated[float, Field(ge=-MAX_PRIOR, le=MAX_PRIOR, allow_inf_nan=False)]
ModelT = TypeVar("ModelT", bound=BaseModel)
UNKNOWN_KEY = "extra_forbidden"  # pydantic's name for the fault


class Strict(BaseModel):
    """Base of every file at the border: unknown keys are refused, values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class FileEntry(Strict):
    """A file of the bundle as it was packed."""

    size_bytes: int = Field(ge=0)
    sha256: Sha256


class GenerationSection(Strict):
    """Of a model that writes: the shape of its decoder's key-value cache, and where it stops."""

    n_layers: int = Field(gt=0)  # of the decoder; each has keys and values in the cache
    n_heads: int = Field(gt=0)  # of the cache: fewer than the queries' where they share them
    head_size: int = Field(gt=0)
    n_vocabulary: int = Field(gt=0)  # logits of a step
    start_id: int = Field(-1, ge=-1)  # seq2seq: what the decoder begins with
    stop_ids: tuple[int, ...] = ()  # any of them ends the text
    forced_first_id: int = Field(-1, ge=-1)  # the first token of every text; -1: free
    forced_last_id: int = Field(-1, ge=-1)  # the last one of a text that is cut off; -1: free
    max_positions: int = Field(0, ge=0)  # the decoder knows; 0: as many as come


class ModelSection(Strict):
    """What the graphs are and how a text reaches them."""

    kind: ModelKind | GeneratorKind
    precision: Precision
    hidden_size: int = Field(gt=0)
    max_tokens: int = Field(gt=2)  # window, control tokens included
    pad_id: int = Field(ge=0)
    text_prefix: str = ""  # e5 wants "query: " before each text
    instruction_weight: float = Field(1.0, ge=0.0, le=1.0)  # of an instruction token in pooling
    has_fusion: bool = False  # graphs/fusion.onnx takes part in the score
    fused_kinds: tuple[TaskKind, ...] = SCORED_KINDS  # of tasks whose score it takes part in
    has_reader: bool = False  # graphs/reader.onnx finds spans
    unpadded: bool = False  # the encoder computes padding in attention alone
    joint_questions: bool = False  # a question is read with the text, from the first layer on
    tags: tuple[str, ...] = ()  # of a token-classification head, in the order of its logits
    score_scale: float = Field(1.0, gt=0.0)  # multiplies the cosine (1 / temperature of the loss)
    base: str = ""  # what it was tuned from
    n_parameters: int = Field(0, ge=0)
    generation: GenerationSection | None = None  # of a model that writes, and of no other

    @model_validator(mode="after")
    def _generation_fits(self) -> ModelSection:
        if (self.generation is not None) != (self.kind in get_args(GeneratorKind)):
            raise ValueError(f"generation does not go with kind {self.kind}")
        if self.generation is not None and self.kind == "seq2seq" and self.generation.start_id < 0:
            raise ValueError("a seq2seq model needs generation.start_id")
        return self


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


RULES = (  # tables and words that are left out of a file where they say nothing
    "held_out",
    "thresholds",
    "none_label",
    "parents",
    "exclusive",
    "head_types",
    "tail_types",
    "priors",
    "prior_weight",
)


class TaskSpec(Strict):
    """One task of `tasks.toml`: instructions by language, labels, calibration."""

    kind: TaskKind = TaskKind.CLASSIFICATION
    labels: tuple[str, ...] = ()
    descriptions: dict[str, str] = Field(default_factory=dict)  # label -> what the model reads
    instructions: dict[str, tuple[str, ...]] = Field(default_factory=dict)  # lang -> wordings
    held_out: dict[str, str] = Field(default_factory=dict)  # lang -> wording never trained on
    lang: str = "en"  # whose first wording is the default
    temperature: float = Field(1.0, gt=0.0)
    decision: DecisionKind = "one"  # softmax or sigmoid over the labels: docs/tasks.md
    threshold: Probability = 0.5  # any: of a chosen label; ner: of a span; at least
    thresholds: dict[str, Probability] = Field(default_factory=dict)  # of labels with their own
    offset: float | None = None  # any, learned: the logit whose probability is one half
    none_label: str = ""  # what "none of these" is called; "": every text gets a label
    none_threshold: Probability | None = None  # one: least fit
    none_logit: float | None = None  # one, learned: what the best label competes with
    min_confidence: Probability = 0.0  # the best probability below it: no answer
    parents: dict[str, str] = Field(default_factory=dict)  # child -> parent
    exclusive: tuple[tuple[str, ...], ...] = ()  # any: at most one of each group
    head_types: dict[str, tuple[str, ...]] = Field(
        default_factory=dict
    )  # relations: label -> types
    tail_types: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    priors: dict[str, Prior] = Field(default_factory=dict)  # label -> log prior, of any candidate
    prior_weight: Prior = 0.0  # learned; the logit of a candidate gains weight * prior

    @model_validator(mode="after")
    def _rules_fit(self) -> TaskSpec:
        seen = [
            (f"held_out.{lang}", "it is one of the instructions, and training must not see it")
            for lang, wording in self.held_out.items()
            if wording in self.instructions.get(lang, ())
        ]
        if faults := [*self.deciding().faults(self.labels), *seen]:
            raise RuleFaults(faults)
        return self

    @model_serializer(mode="wrap")
    def _without_empty(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """TOML has no word for None, and an empty table only fills the file."""
        found: dict[str, Any] = dump(self)
        return {k: v for k, v in found.items() if v is not None and not (k in RULES and not v)}

    def deciding(self) -> Decision:
        """How the task's scores become its answer."""
        return Decision(
            kind=self.decision,
            threshold=self._threshold(),
            thresholds=tuple(self.thresholds.items()),
            offset=self.offset,
            none_label=self.none_label,
            none_logit=self.none_logit,
            min_confidence=self.min_confidence,
            parents=tuple(self.parents.items()),
            exclusive=self.exclusive,
            head_types=freeze_types(self.head_types),
            tail_types=freeze_types(self.tail_types),
        )

    def _threshold(self) -> float | None:
        is_own = self.decision == "any" or self.kind is TaskKind.NER
        return self.threshold if is_own else self.none_threshold

    def relabelled(self, candidates: Sequence[Candidate]) -> TaskSpec:
        """The task with other candidates: rules about labels that are gone go with them.

        What was learned of the task's own labels says nothing about strange ones.
        """
        labels = tuple(c.label for c in candidates)
        rules = self.deciding().restricted(labels)
        changes: dict[str, Any] = {
            "labels": labels,
            "descriptions": {c.label: c.description for c in candidates},
            "thresholds": dict(rules.thresholds),
            "parents": dict(rules.parents),
            "exclusive": rules.exclusive,
            "head_types": dict(rules.head_types),
            "tail_types": dict(rules.tail_types),
            "priors": {c.label: c.prior or self.priors.get(c.label, 0.0) for c in candidates},
        }
        if not set(labels) <= set(self.labels):
            changes |= {"none_logit": None, "offset": None}
        return self.model_copy(update=changes)

    def wording(self) -> str:
        """The default wording of the instruction; "" where there is none."""
        wordings = self.instructions.get(self.lang) or next(iter(self.instructions.values()), ())
        return wordings[0] if wordings else ""

    def instruction(self, name: str, text: str = "") -> Instruction:
        """The task as an instruction, in its default wording unless `text` is given.

        The words put to a task of questions are the question, which is its only candidate.

        Raises:
            RequestError: what `Instruction.of` raises.
        """
        labels = self.labels
        if self.kind is TaskKind.QA and not labels:
            if not text.strip():
                raise LabelMissing(
                    f"task {name!r} answers questions, and none came",
                    hint="give the question as the instruction",
                )
            labels, text = (text.strip(),), ""
        return Instruction.of(
            text or self.wording(),
            [
                Candidate(label, self.descriptions.get(label, ""), self.priors.get(label, 0.0))
                for label in labels
            ],
            kind=self.kind,
            temperature=self.temperature,
            task=name,
            decision=self.deciding(),
            prior_weight=self.prior_weight,
        )


class TaskBook(Strict):
    """`tasks.toml`: the tasks a bundle answers without being told labels."""

    default_task: str = ""
    tasks: dict[str, TaskSpec] = Field(default_factory=dict)

    @property
    def span_threshold(self) -> float:
        """Least score of a span where a request brings types of its own, and no threshold.

        The median of what validation rows chose for the tasks of entities: a span reader's scores
        are as sure of themselves on other types as on its own.
        """
        found = [spec.threshold for spec in self.tasks.values() if spec.kind is TaskKind.NER]
        return median_low(found) if found else DEFAULT_THRESHOLD


def parse_toml(
    model: type[ModelT], text: str, *, where: str, error: type[InstructRecError] = BundleError
) -> ModelT:
    """Parse TOML into a model; all faults are reported at once, with their key paths."""
    try:
        return model.model_validate(tomllib.loads(text))
    except (tomllib.TOMLDecodeError, RecursionError) as fault:
        raise error(f"{where}: not valid TOML: {fault}", hint="mend the syntax") from fault
    except ValidationError as fault:
        told = describe_faults(fault, known=_keys_of(model))
        raise error(f"{where}: {told}", hint="mend the keys named") from fault


def describe_faults(error: ValidationError, *, known: Iterable[str] = ()) -> str:
    """All faults in one line each, without the input's values.

    Args:
        known: keys that a misspelt one may have been meant for.
    """
    return "; ".join(
        f"{key}: {_unknown_key(key, known) if fault['type'] == UNKNOWN_KEY else what}"
        for fault in error.errors(include_input=False, include_url=False)
        for key, what in split_fault(fault)
    )


def _unknown_key(path: str, known: Iterable[str]) -> str:
    return f"no such key. {did_you_mean(path.rpartition('.')[2], known)}".rstrip(". ")


def _keys_of(model: type[BaseModel]) -> set[str]:
    """The names of all fields of a model and of those within it."""
    schema = model.model_json_schema()
    parts = [schema, *schema.get("$defs", {}).values()]
    return {name for part in parts for name in part.get("properties", ())}


def split_fault(fault: Mapping[str, Any]) -> list[tuple[str, str]]:
    """One of pydantic's faults as (key path, what); a task's rules may have several."""
    path = ".".join(str(part) for part in fault["loc"])
    cause = fault.get("ctx", {}).get("error")
    if isinstance(cause, RuleFaults):
        return [(f"{path}.{key}" if path else key, what) for key, what in cause.faults]
    return [(path or "(top)", fault["msg"])]
