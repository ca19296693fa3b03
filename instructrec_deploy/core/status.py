"""What a server says about itself, and about an instruction it has prepared."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class PreparedInfo:
    """A prepared instruction as its caller sees it; `prepared_id` stands for it from now on."""

    prepared_id: str
    n_candidates: int = 0
    cached: bool = False  # it was there already
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """One task of the bundle. `labels` only where they were asked for."""

    name: str
    kind: str = "classification"
    n_labels: int = 0
    is_default: bool = False
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Limits:
    """What a server accepts; characters are code points."""

    max_text_chars: int = 0
    max_candidates: int = 0
    max_questions: int = 0
    max_batch_items: int = 0
    max_message_bytes: int = 0
    max_tokens: int = 0


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A version of a model."""

    model: str
    model_version: str = ""  # "" where it is refused
    release: str = ""  # its folder in the repository
    state: str = "serving"  # or "refused": it lies there and cannot be served
    code: str = ""  # IR-nnnn, why


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """What is served, and whether it answers yet."""

    model: str = ""
    model_version: str = ""
    kind: str = ""
    precision: str = ""
    is_ready: bool = False
    tasks: tuple[TaskStatus, ...] = ()
    n_prepared: int = 0
    prepared_bytes: int = 0
    uptime_s: float = 0.0
    limits: Limits = field(default_factory=Limits)
    server_version: str = ""
    models: tuple[ServedModel, ...] = ()  # all; of a name, the newest version last


@dataclass(frozen=True, slots=True)
class ModelChange:
    """What became of a model when a new version was asked for."""

    model: str
    model_version: str  # that answers now
    previous_version: str = ""  # that answered before; the same where nothing changed

    @property
    def is_changed(self) -> bool:
        """Whether another version answers than before."""
        return self.model_version != self.previous_version
