"""The export plan: one TOML file that says which stages there are and what each may lose.

Losses are points (hundredths) of the headline figure on validation rows, against the stage before;
those of `[pack]` are of the whole export, against the run.
"""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, model_validator

from instructrec_deploy.core.errors import ConfigError, FileMissing
from instructrec_deploy.core.manifest import Precision, Strict, parse_toml

SHIPPED_PLANS = Path(__file__).parent / "plans"


class PrunePart(Strict):
    """`[prune]`: as the options of `instructrec prune`."""

    ffn: float = Field(1.0, gt=0.0, le=1.0)
    heads: float = Field(1.0, gt=0.0, le=1.0)
    layers: int = Field(0, ge=0)  # 0: all
    rows: int = Field(512, ge=16)
    epochs: int | None = Field(None, ge=0)  # of the distillation; None: the run's
    learning_rate: float = Field(0.0, ge=0.0)  # 0: the run's
    max_minutes: float = Field(0.0, ge=0.0)  # of each distillation; 0: no limit
    refit: bool = True  # least squares before the distillation
    max_loss: float | None = Field(None, ge=0.0)
    tries: int = Field(2, ge=0)  # milder settings that are tried where this one loses too much


class VocabularyPart(Strict):
    """`[vocabulary]`: trimming."""

    corpus: str = ""  # a data file; "": the run's training rows
    size: int = Field(0, ge=0)  # 0: what the corpus needs
    max_loss: float | None = Field(None, ge=0.0)


class QuantizePart(Strict):
    """`[quantize]`."""

    precision: Precision = "int8"
    calibration: str = ""  # a data file; "": the run's samples
    # Nats on the calibration texts: the parts that int8 costs most stay in floats until it holds.
    max_divergence: float | None = Field(None, gt=0.0)
    max_loss: float | None = Field(None, ge=0.0)

    @model_validator(mode="after")
    def _mixes_int8(self) -> QuantizePart:
        if self.max_divergence is not None and self.precision != "int8":
            raise ValueError(f"max_divergence goes with int8, not with {self.precision}")
        return self


class PackPart(Strict):
    """`[pack]`: what the bundle as a whole must keep."""

    max_loss: float | None = Field(None, ge=0.0)
    max_size_mb: float = Field(0.0, ge=0.0)  # 0: any


class Plan(Strict):
    """The whole file; a stage that is not named is left out."""

    name: str = Field(min_length=1, pattern=r"^[A-Za-z0-9._-]+$")
    quality_rows: int = Field(1_000, ge=1)  # at most so many of each task tell the quality
    prune: PrunePart | None = None
    vocabulary: VocabularyPart | None = None
    quantize: QuantizePart = QuantizePart()
    pack: PackPart = PackPart()

    @property
    def measures_quality(self) -> bool:
        """Whether a stage has a limit that labelled rows must prove."""
        parts = (self.prune, self.vocabulary, self.quantize, self.pack)
        return any(part is not None and part.max_loss is not None for part in parts)


def read_plan(name: str | Path) -> Plan:
    """Read a plan file; a bare name (`edge`) finds one that comes with the package.

    Raises:
        FileMissing: no such file.
        ConfigError: not TOML, an unknown key, a wrong value; all faults at once.
    """
    shipped = {file.stem: file for file in sorted(SHIPPED_PLANS.glob("*.toml"))}
    file = Path(name)
    if not file.is_file():
        if str(name) not in shipped:
            raise FileMissing(
                f"no plan {str(name)!r}", hint=f"give a path, or one of: {', '.join(shipped)}"
            )
        file = shipped[str(name)]
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: cannot be read as UTF-8", hint="save it as UTF-8") from error
    return parse_toml(Plan, text, where=str(file), error=ConfigError)
