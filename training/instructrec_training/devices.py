"""Where a run computes, and in which arithmetic."""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.state import AcceleratorState
from transformers import PreTrainedModel

from instructrec_deploy.models.arithmetic import has_bf16
from instructrec_training.memory import keep_freed_memory

FUSED_FROM_TOKENS = 192


def choose_precision(wanted: str, *, has_bf16: bool) -> str:
    """The arithmetic of the forward pass: what was asked for, or what the device is good at.

    CPUs without instructions for bf16 emulate it, many times slower; they keep to fp32.
    """
    if wanted == "auto":
        return "bf16" if has_bf16 else "fp32"
    return wanted


def start_accelerator(precision: str) -> Accelerator:
    """The device that accelerate chooses, with a recipe's `precision`."""
    chosen = choose_precision(precision, has_bf16=has_bf16())
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
    """Plain attention for short rows in bf16 on a CPU: torch's fused one is slow at them.

    Measured on two cores with AMX, MiniLM, 32 rows of 64 tokens: 2.1 x the steps a second; from 256
    tokens on the two are alike. With AVX-512 BF16 alone, e5-enzh, 16 rows of 128: 1.3 x. Long rows
    keep the fused one: 32 rows of 384 tokens in plain attention took 19 GB.
    """
    if accelerator.device.type == "cpu" and accelerator.mixed_precision == "bf16":
        for part in model.modules():
            if isinstance(part, PreTrainedModel):
                part.register_forward_pre_hook(_choose_attention, with_kwargs=True)


def _choose_attention(encoder: PreTrainedModel, args: tuple[Any, ...], given: Any) -> None:
    """Before each pass of an encoder: the attention for its rows [B, T]."""
    ids = args[0] if args else given.get("input_ids")
    if ids is None:
        return
    wanted = "eager" if ids.shape[1] < FUSED_FROM_TOKENS else "sdpa"
    if encoder.config._attn_implementation != wanted:
        encoder.set_attn_implementation(wanted)
