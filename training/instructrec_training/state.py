"""What a killed run goes on from: files written whole or not at all, and random generators."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import torch

RESUME_FILE = "resume.pt"
BEST_FILE = "best.pt"


def write_state(file: Path, content: Any) -> None:
    """Save plain data and tensors, in place of what was there; its folder is made."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    try:
        with part.open("wb") as stream:  # given the path, torch hides what went wrong
            torch.save(content, stream)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    part.replace(file)


def forget_state(folder: Path) -> None:
    """Remove resume points of an earlier run."""
    shutil.rmtree(folder, ignore_errors=True)


def set_seed(seed: int) -> None:
    """Seed every generator that training draws from."""
    random.seed(seed)
    torch.manual_seed(seed)


def generators(device: torch.device) -> dict[str, Any]:
    """The state of torch's generators: `cpu`, and `cuda` where that is the device."""
    on_gpu = device.type == "cuda"
    return {
        "cpu": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if on_gpu else None,
    }


def set_generators(state: dict[str, Any], device: torch.device) -> None:
    """Put back what `generators` gave."""
    torch.set_rng_state(state["cpu"])
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"], device)
