"""Where a run computes, and in which arithmetic."""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState

from instructrec_training.memory import keep_freed_memory


def choose_precision(wanted: str, *, has_bf16: bool) -> str:
    """The arithmetic of the forward pass: what was asked for, or what the device is good at.

    CPUs without matrix units for bf16 emulate it, many times slower; they keep to fp32.
    """
    if wanted == "auto":
        return "bf16" if has_bf16 else "fp32"
    return wanted


def start_accelerator(precision: str) -> Accelerator:
    """The device that accelerate chooses, with a recipe's `precision`."""
    chosen = choose_precision(precision, has_bf16=_has_bf16())
    # a batch holds one task: the weights of the others' labels get no gradient in that step
    spare = DistributedDataParallelKwargs(find_unused_parameters=True)
    AcceleratorState._reset_state()  # an earlier run of this process may have computed otherwise
    accelerator = Accelerator(
        mixed_precision="bf16" if chosen == "bf16" else "no", kwargs_handlers=[spare]
    )
    if accelerator.device.type == "cpu":
        keep_freed_memory()
    return accelerator


def suit_attention(model: Any, accelerator: Accelerator) -> None:
    """Plain attention for bf16 on a CPU: torch's fused one does not use the matrix units.

    Measured on two cores with AMX, MiniLM, 32 rows of 64 tokens: 2.1 x the steps a second; from 256
    tokens on the two are alike.
    """
    if accelerator.device.type == "cpu" and accelerator.mixed_precision == "bf16":
        model.set_attn_implementation("eager")


def _has_bf16() -> bool:
    """Whether the device computes in bf16 faster than in fp32."""
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))
