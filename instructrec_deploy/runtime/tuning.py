"""What `instructrec tune-engine` measured for a bundle on this machine, and what it chose.

A small JSON file for each machine and bundle in the user's cache, read where `engine.runtime` is
"auto". The machine is known by its processor's name, the cores that may be used and the versions of
the runtimes; the bundle by its manifest, which holds the hash of every file. Another machine,
version or bundle has no record, and runs as if nothing had been measured.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from instructrec_deploy.core.bundle import MANIFEST_FILE, Bundle, hash_file, read_text
from instructrec_deploy.core.errors import ConfigError
from instructrec_deploy.core.machine import cpu_name, package_versions
from instructrec_deploy.core.manifest import describe_faults
from instructrec_deploy.core.settings import Section
from instructrec_deploy.runtime.providers import available_cores

RUNTIMES = ("onnxruntime", "onnxruntime-gpu", "openvino")
HOME_VARIABLE = "INSTRUCTREC_TUNING"
KEY_DIGITS = 16


class Machine(Section):
    """What a measurement holds for."""

    cpu: str
    n_cores: int
    packages: dict[str, str]

    @classmethod
    def here(cls) -> Machine:
        """This one."""
        return cls(cpu=cpu_name(), n_cores=available_cores(), packages=package_versions(RUNTIMES))


class Choice(Section):
    """Settings of the engine and of batches that are measured."""

    runtime: Literal["onnxruntime", "openvino"]
    n_lanes: int = Field(ge=1)
    threads_per_lane: int = Field(ge=1)
    max_batch_tokens: int = Field(ge=1)

    @property
    def words(self) -> str:
        """For people."""
        return (
            f"{self.runtime}, n_lanes {self.n_lanes}, threads_per_lane {self.threads_per_lane}, "
            f"max_batch_tokens {self.max_batch_tokens}"
        )


class Tried(Section):
    """A choice that was measured, beside what the program takes by itself."""

    choice: Choice
    texts_per_s: float
    single_ms: float  # of one text alone, in process
    ratio: float  # throughput as a multiple of that of the first one tried
    interval: tuple[float, float]  # of the ratio, 95 %, bootstrap over rounds


class Tuning(Section):
    """One measurement."""

    format_version: Literal[1] = 1
    name: str  # of the bundle
    version: str
    bundle_sha256: str
    machine: Machine
    created: str  # ISO 8601, UTC
    choice: Choice
    tried: tuple[Tried, ...]

    @property
    def gain(self) -> Tried:
        """The chosen one's figures."""
        return next(one for one in self.tried if one.choice == self.choice)


def tuning_home() -> Path:
    """Where measurements lie: `INSTRUCTREC_TUNING`, else `~/.cache/instructrec/tuning`."""
    stated = os.environ.get(HOME_VARIABLE, "")
    return Path(stated).expanduser() if stated else Path.home() / ".cache" / "instructrec/tuning"


def bundle_hash(bundle: Bundle) -> str:
    """SHA-256 of its manifest, which tells that of every file."""
    return hash_file(bundle.root / MANIFEST_FILE)


def tuning_file(bundle: Bundle, machine: Machine, home: Path) -> Path:
    """Where the measurement of a bundle on a machine lies."""
    told = json.dumps(machine.model_dump(mode="json"), sort_keys=True)
    key = hashlib.sha256(told.encode()).hexdigest()
    return home / f"{bundle_hash(bundle)[:KEY_DIGITS]}-{key[:KEY_DIGITS]}.json"


def find_tuning(bundle: Bundle, home: Path | None = None) -> Tuning | None:
    """The measurement for a bundle on this machine; None where there is none.

    Raises:
        ConfigError: there is a file, and it is damaged.
    """
    path = tuning_file(bundle, Machine.here(), home or tuning_home())
    if not path.is_file():
        return None
    try:
        return Tuning.model_validate_json(read_text(path))
    except ValidationError as error:
        raise ConfigError(
            f"{path}: {describe_faults(error)}",
            hint="delete the file, then `instructrec tune-engine BUNDLE`",
        ) from error


def write_tuning(tuning: Tuning, bundle: Bundle, home: Path | None = None) -> Path:
    """Keep a measurement, whole or not at all; the file."""
    path = tuning_file(bundle, tuning.machine, home or tuning_home())
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}.part")
    part.write_text(tuning.model_dump_json(indent=1) + "\n", encoding="utf-8")
    part.replace(path)
    return path


def explain_tuning(bundle: Bundle, home: Path | None = None) -> Iterator[str]:
    """Lines for people: what "auto" means for a bundle here, and why.

    Raises:
        ConfigError: as `find_tuning`.
    """
    found = find_tuning(bundle, home)
    if found is None:
        yield (
            "engine.runtime auto is onnxruntime: nothing was measured for this bundle on this "
            "machine with these versions (`instructrec tune-engine BUNDLE`)"
        )
        return
    gain = found.gain
    low, high = gain.interval
    yield f"engine.runtime auto is {found.choice.words}"
    yield (
        f"measured {found.created}: {gain.ratio:.2f} x [{low:.2f}, {high:.2f}] the throughput of "
        f"{found.tried[0].choice.words}; one text alone {gain.single_ms:.1f} ms"
    )
    yield f"file: {tuning_file(bundle, found.machine, home or tuning_home())}"
