"""The recipe: one TOML file that says model, data, instructions and how to train."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from instructrec_deploy.core.errors import ConfigError, FileMissing
from instructrec_deploy.core.manifest import SPAN_HEADS, ModelKind, Strict, TaskSpec, split_fault
from instructrec_deploy.core.near import did_you_mean
from instructrec_deploy.core.task import SCORED_KINDS, SHAPES, Shape, TaskKind
from instructrec_training.families import INSTRUCTIONS_FROM, with_families
from instructrec_training.mixture import Mixture
from instructrec_training.prompted import pattern_fault

SHIPPED_RECIPES = Path(__file__).parent / "recipes"
# Keys of [training] that only tasks of labels take.
LABEL_KEYS = ("focal_gamma", "label_vector_dropout", "metric", "probe", "probe_again")
SINGLE_KEYS = ("label_smoothing", "contrastive_weight", "teacher")  # and only single labels
LEAST_WINDOW = 64  # tokens
Beta = Annotated[float, Field(ge=0.0, lt=1.0)]
Schedule = Literal[  # transformers' SchedulerType
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "reduce_lr_on_plateau",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
    "greedy",
]


class ModelPart(Strict):
    """`[model]`: what is tuned."""

    kind: ModelKind = "instruction-encoder"
    base: str = "minilm"  # preset, transformers folder, or Hugging Face hub id
    max_tokens: int = Field(0, ge=0)  # window; 0 takes the preset's
    use_fusion: bool = True  # instruction encoder only
    fused_kinds: tuple[TaskKind, ...] = SCORED_KINDS  # of tasks whose score the fusion is part of
    reader_layers: int = Field(2, ge=1)  # joint layers of the span reader, where a task has spans
    joint_questions: bool = False  # read a question with the text, in every layer
    pooling: Literal["native", "mean"] = "native"  # sequence-classification only
    dropout: float | None = Field(None, ge=0.0, lt=1.0)  # None keeps the base's own
    text_prefix: str | None = None
    instruction_weight: float | None = Field(None, ge=0.0, le=1.0)

    @property
    def reads_questions(self) -> bool:
        """Whether a question is read with the text, in every layer."""
        return self.joint_questions or self.kind == "question-answering"


class DataPart(Strict):
    """`[[data]]`: one file and which of its splits serve what."""

    path: str  # relative to the data root; "shipped:NAME" is data that comes with the package
    task: str  # a task of [tasks]
    items: str = ""  # ranking: a file that says what the ids among the rows' candidates stand for
    train_split: str = "train"
    validation_split: str = ""  # "" takes `validation_share` of the training rows
    validation_share: float = Field(0.1, gt=0.0, lt=1.0)  # by a hash of the row's user, or id
    test_split: str = "test"  # "" tests on the validation rows
    weight: float = Field(1.0, gt=0.0)  # how often the mixture shows this file's rows
    limit: int = Field(0, ge=0)  # at most so many training rows; 0 takes all
    window_tokens: int = Field(0, ge=0)  # qa: learn from shorter windows than the model's; 0: its
    held_out_labels: int = Field(0, ge=0)  # so many are left out: those with the least SHA-256
    shots: int = Field(0, ge=0)  # of each label, drawn by a hash of seed and id; 0 takes all
    attacked: float = Field(
        0.0, ge=0.0, le=1.0
    )  # a copy of so many rows tries to name another label
    columns: dict[str, str] = Field(default_factory=dict)  # our field -> the file's column
    where: dict[str, str] = Field(
        default_factory=dict
    )  # field -> pattern that its value fits whole
    prompts: tuple[str, ...] = ()  # patterns with groups text, text2, question: see `prompted`
    rename: dict[str, str] = Field(default_factory=dict)  # the file's label -> the task's

    @model_validator(mode="after")
    def _patterns_compile(self) -> DataPart:
        faults = [fault for pattern in self.prompts if (fault := pattern_fault(pattern))]
        for name, pattern in self.where.items():
            try:
                re.compile(pattern)
            except re.error as error:
                faults.append(f"where.{name}: {pattern!r} is no regular expression: {error}")
        if faults:
            raise ValueError("; ".join(faults))
        return self


class TrainingPart(Strict):
    """`[training]`: how long and how fast; `docs/training.md` tells each key with its source."""

    epochs: int = Field(3, ge=0)
    steps_per_epoch: int = Field(0, ge=0)  # at most so many optimizer steps; 0: all rows
    freeze_embeddings: bool = False  # half of a small model's weights, and the least to gain
    freeze_layers: int = Field(0, ge=0)  # the lowest n layers; freezes the embeddings, too
    batch_size: int = Field(64, ge=1)
    span_batch_size: int = Field(0, ge=0)  # of entities and questions; 0: batch_size
    batch_tokens: int = Field(0, ge=0)  # of a batch at most, padding with it; 0: no limit
    optimizer: Literal["adamw", "sgd", "adafactor"] = "adamw"
    betas: tuple[Beta, Beta] = (0.9, 0.999)  # adamw
    momentum: float = Field(0.9, ge=0.0, lt=1.0)  # sgd
    learning_rate: float = Field(1e-4, gt=0.0)
    head_learning_rate: float = Field(1e-3, gt=0.0)  # fusion, label vectors, classifier, adapters
    reader_learning_rate: float = Field(0.0, ge=0.0)  # the span reader's layers; 0: learning_rate
    weight_decay: float = Field(0.01, ge=0.0)
    pull_to_base: float = Field(0.0, ge=0.0)  # of the encoder, a step: learning rate x this share
    warmup_share: float = Field(0.1, ge=0.0, lt=1.0)  # of all steps
    schedule: Schedule = "linear"
    schedule_options: dict[str, bool | int | float | str] = Field(default_factory=dict)
    max_grad_norm: float = Field(1.0, gt=0.0)
    accumulation_steps: int = Field(1, ge=1)
    label_smoothing: float = Field(0.0, ge=0.0, lt=1.0)
    focal_gamma: float = Field(0.0, ge=0.0)  # rows that are already sure count less; 0: all alike
    contrastive_weight: float = Field(0.0, ge=0.0)
    contrastive_temperature: float = Field(0.1, gt=0.0)
    teacher: str = ""  # a run's checkpoint folder, or a bundle
    distil_weight: float = Field(0.5, gt=0.0, le=1.0)  # of the teacher against the labels
    distil_temperature: float = Field(2.0, gt=0.0)
    candidate_refresh_steps: int = Field(1, ge=1)  # re-read candidates with gradient every n steps
    label_vector_dropout: float = Field(0.0, ge=0.0, le=1.0)  # steps without the vectors of labels
    probe: bool = False  # start from a logistic regression on the frozen vectors
    probe_again: bool = False  # end with one on the tuned (and averaged) vectors
    probe_inverse_l2: float = Field(1.0, gt=0.0)  # scikit-learn's C
    lora_rank: int = Field(0, ge=0)  # 0: no adapters, all weights are tuned
    lora_alpha: int = Field(0, ge=0)  # 0: twice the rank
    lora_dropout: float = Field(0.0, ge=0.0, lt=1.0)
    lora_targets: tuple[str, ...] = ()  # names of linear layers; (): the attention's projections
    adversarial_epsilon: float = Field(0.0, ge=0.0)  # length of the step on the embeddings
    mixture: Mixture = "proportional"  # of several tasks' rows
    adaptive_weights: bool = False  # weigh tasks by how their losses fall
    metric: Literal["accuracy", "macro_f1"] = "accuracy"  # on validation rows
    evaluation_rows: int = Field(0, ge=0)  # at most so many to validate and test on; 0: all
    patience: int = Field(2, ge=1)  # epochs without a better metric before stopping early
    keep: Literal["best", "last"] = "best"  # epoch whose weights the run leaves
    ema_decay: float = Field(0.0, ge=0.0, lt=1.0)  # 0: no moving average of the weights
    average_with_base: Annotated[float, Field(ge=0.0, le=1.0)] | Literal["auto"] = 0.0
    checkpoint_steps: int = Field(0, ge=0)  # resume point every n steps; 0: every epoch
    max_minutes: float = Field(0.0, ge=0.0)  # of steps, the rates fall with it; 0: no limit
    precision: Literal["auto", "fp32", "bf16"] = "auto"  # auto: bf16 where the GPU has it
    log_steps: int = Field(50, ge=0)  # a "step" line in log.jsonl every n steps; 0: none
    tensorboard: bool = False  # RUN/tensorboard beside log.jsonl
    seed: int = 1
    samples: int = Field(64, ge=1)  # training texts kept with the run for golden pairs

    @model_validator(mode="after")
    def _keys_agree(self) -> TrainingPart:
        """A key that another one leaves without effect is a mistake, told once for all."""
        needs: tuple[tuple[bool, str, tuple[str, ...]], ...] = (
            (self.optimizer == "adamw", 'optimizer = "adamw"', ("betas",)),
            (self.optimizer == "sgd", 'optimizer = "sgd"', ("momentum",)),
            (bool(self.lora_rank), "lora_rank", ("lora_alpha", "lora_dropout", "lora_targets")),
            (bool(self.teacher), "teacher", ("distil_weight", "distil_temperature")),
            (self.contrastive_weight > 0, "contrastive_weight", ("contrastive_temperature",)),
            (self.probe or self.probe_again, "probe = true", ("probe_inverse_l2",)),
            (
                self.schedule not in ("constant", "constant_with_warmup"),
                "another schedule",
                ("schedule_options",),
            ),
        )
        changed = self.changed()
        faults = [
            f"{key} has no effect without {reason}"
            for holds, reason, keys in needs
            for key in keys
            if not holds and key in changed
        ]
        if self.lora_rank and self.pull_to_base:
            faults.append("pull_to_base has no effect with lora_rank, which freezes the encoder")
        if self.lora_rank and (self.freeze_layers or self.freeze_embeddings):
            faults.append("lora_rank freezes the whole encoder: leave freeze_* out")
        if faults:
            raise ValueError("; ".join(faults))
        return self

    def changed(self) -> set[str]:
        """Keys that do not have their default value."""
        return {
            key
            for key, field in type(self).model_fields.items()
            if getattr(self, key) != field.get_default(call_default_factory=True)
        }


class Recipe(Strict):
    """The whole file. Paths stay as written; `training.data` resolves them."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")
    description: str = ""
    default_task: str = ""
    model: ModelPart = ModelPart()
    data: tuple[DataPart, ...] = Field(min_length=1)
    tasks: dict[str, TaskSpec] = Field(min_length=1)
    training: TrainingPart = TrainingPart()

    @model_validator(mode="before")
    @classmethod
    def _take_families(cls, raw: Any) -> Any:
        return with_families(raw)

    def _has_one_label(self, task: str) -> bool:
        spec = self.tasks[task]
        return SHAPES[spec.kind] is Shape.CLASSIFY and spec.decision == "one"

    def _fused_label_faults(self) -> list[str]:
        """A regression on pooled vectors knows nothing of what a fusion adds to their scores."""
        part = self.model
        if not self.training.probe_again or part.kind != "instruction-encoder":
            return []
        labelled = {task.kind for task in self.tasks.values() if _has_fixed_labels(task)}
        fused = sorted(labelled.intersection(part.fused_kinds)) if part.use_fusion else []
        return [
            f"training.probe_again fits labels of kind {kind}, and the fusion scores them: leave "
            "it out of model.fused_kinds, or set use_fusion = false"
            for kind in fused
        ]

    @model_validator(mode="after")
    def _names_fit(self) -> Recipe:
        faults = []
        for position, part in enumerate(self.data):
            if part.task not in self.tasks:
                faults.append(f"data.{position}.task {part.task!r} is not in [tasks]")
            elif part.shots and not _has_fixed_labels(self.tasks[part.task]):
                faults.append(
                    f"data.{position}.shots counts rows of a label, and task {part.task!r} has "
                    "none: use limit"
                )
            elif part.held_out_labels and not self._has_one_label(part.task):
                faults.append(
                    f"data.{position}.held_out_labels: task {part.task!r} has no rows of one label"
                )
            elif 0 < part.window_tokens < LEAST_WINDOW:
                faults.append(
                    f"data.{position}.window_tokens = {part.window_tokens} leaves no room beside a "
                    f"question: at least {LEAST_WINDOW}, or 0 for the model's own"
                )
            elif part.window_tokens and self.tasks[part.task].kind is not TaskKind.QA:
                faults.append(
                    f"data.{position}.window_tokens cuts passages around answers, and task "
                    f"{part.task!r} is of kind {self.tasks[part.task].kind}"
                )
            elif part.attacked and not self._has_one_label(part.task):
                faults.append(
                    f"data.{position}.attacked: task {part.task!r} has no rows of one label"
                )
        if self.default_task and self.default_task not in self.tasks:
            faults.append(f"default_task {self.default_task!r} is not in [tasks]")
        if len({part.task for part in self.data}) == 1:
            keys = sorted({"adaptive_weights", "mixture"} & self.training.changed())
            faults += [f"training.{key} has no effect with one task" for key in keys]
        if self.model.kind != "instruction-encoder" and len(self.tasks) != 1:
            faults.append(f"a {self.model.kind} model has exactly one task")
        for name, task in self.tasks.items():
            faults += _head_faults(self.model.kind, name, task)
            if not any(task.instructions.values()):  # a head reads none, who asks sees one
                faults.append(f"tasks.{name} has no instructions")
        if all(SHAPES[task.kind] is not Shape.CLASSIFY for task in self.tasks.values()):
            chosen = [key for key in LABEL_KEYS if key in self.training.changed()]
            faults += [f"training.{key} has no effect: no task has labels" for key in chosen]
        faults += self._fused_label_faults()
        if not any(has_single_labels(task) for task in self.tasks.values()):
            chosen = [key for key in SINGLE_KEYS if key in self.training.changed()]
            what = "no task is answered by one of its labels"
            faults += [f"training.{key} has no effect: {what}" for key in chosen]
        if faults:
            raise ValueError("; ".join(faults))
        return self


def _head_faults(kind: ModelKind, name: str, task: TaskSpec) -> list[str]:
    """Why the head of a model cannot answer a task."""
    if only := SPAN_HEADS.get(kind):
        if task.kind is not only:
            return [f"tasks.{name}.kind is {task.kind}: a {kind} model answers {only} alone"]
    elif kind == "sequence-classification":
        if task.kind is TaskKind.RANKING:
            return [f"tasks.{name}: a ranking needs an instruction-encoder"]
        if SHAPES[task.kind] is Shape.EXTRACT:
            fitting = next(head for head, sole in SPAN_HEADS.items() if sole is task.kind)
            return [f"tasks.{name}.kind is {task.kind}: take a model of kind {fitting}"]
    return []


def _has_fixed_labels(task: TaskSpec) -> bool:
    return SHAPES[task.kind] is Shape.CLASSIFY and task.kind is not TaskKind.RANKING


def has_single_labels(task: TaskSpec) -> bool:
    """Whether a task is answered by one of its labels."""
    return _has_fixed_labels(task) and task.decision == "one"


CHANGEABLE = ("training", "model", "data")  # parts whose keys have one value each


def with_values(recipe: Recipe, values: Mapping[str, Any]) -> Recipe:
    """The recipe with keys like "training.epochs" changed, checked as a whole.

    "data.limit" is that of every file.

    Raises:
        ConfigError: the values do not fit the recipe.
    """
    content = recipe.model_dump()
    for key, value in values.items():
        part, _, name = key.partition(".")
        if part not in CHANGEABLE or not name:
            raise ConfigError(
                f"recipe {recipe.name!r}: {key!r} cannot be changed from outside",
                hint=f"keys of {', '.join(CHANGEABLE)} can: training.epochs",
            )
        found = content[part]
        for section in [found] if isinstance(found, dict) else found:
            section[name] = value
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        faults, hint = explain_faults(error)
        raise ConfigError(f"recipe {recipe.name!r}: {faults}", hint=hint) from error


def read_recipe(path: str | Path) -> Recipe:
    """Read a recipe file; a bare name (`demo-en`) finds a recipe that comes with the package.

    Raises:
        FileMissing: no such file.
        ConfigError: not TOML, an unknown key, a wrong value; all faults at once.
    """
    file = find_recipe(path)
    try:
        raw = tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigError(f"{file}: not valid TOML: {error}", hint="mend the syntax") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read as UTF-8", hint="save it as UTF-8") from error
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        faults, hint = explain_faults(error)
        raise ConfigError(f"{file}: {faults}", hint=hint) from error


def find_recipe(path: str | Path) -> Path:
    """The file a user means by a path or by the bare name of a shipped recipe."""
    given = Path(path)
    tried = [given]
    if len(given.parts) == 1:
        name = given.name if given.suffix == ".toml" else f"{given.name}.toml"
        tried += [folder / name for folder in recipe_folders()]
    for file in tried:
        if file.is_file():
            return file
    shipped = sorted({f.stem for folder in recipe_folders() for f in folder.glob("*.toml")})
    raise FileMissing(
        f"no recipe {str(given)!r}", hint=f"give a path, or one of: {', '.join(shipped)}"
    )


def recipe_folders() -> list[Path]:
    """Where shipped recipes lie: in the wheel, or in a checkout beside the package."""
    return [f for f in (SHIPPED_RECIPES, Path(__file__).parents[1] / "recipes") if f.is_dir()]


def explain_faults(error: ValidationError) -> tuple[str, str]:
    """All faults with their key paths, and a hint that names the nearest valid key."""
    lines, hints = [], []
    for fault in error.errors(include_input=False, include_url=False):
        path = ".".join(str(part) for part in fault["loc"]) or "recipe"
        if fault["type"] == "extra_forbidden":
            lines.append(f"{path}: unknown key")
            meant = did_you_mean(str(fault["loc"][-1]), _known_keys(fault["loc"]))
            if meant:
                hints.append(f"{path}: {meant}")
        elif fault["loc"]:
            lines += [f"{key}: {what}" for key, what in split_fault(fault)]
        else:
            lines.append(f"{path}: {fault['msg']}")
    return "; ".join(lines), " ".join(hints) or "mend the keys named"


def _known_keys(location: tuple[Any, ...]) -> list[str]:
    parts: dict[str, type[Strict]] = {
        "model": ModelPart,
        "data": DataPart,
        "tasks": TaskSpec,
        "training": TrainingPart,
    }
    model = parts.get(str(location[0]), Recipe) if len(location) > 1 else Recipe
    return [*model.model_fields, *([INSTRUCTIONS_FROM] if model is TaskSpec else [])]
