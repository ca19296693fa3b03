"""What the device computes fast."""

from __future__ import annotations

import torch


def has_bf16() -> bool:
    """Whether the device computes in bf16 faster than in fp32.

    CPUs without instructions for it emulate it, many times slower. Measured on two cores with
    AVX-512 BF16 and no AMX, e5-enzh with half its layers frozen: 1.6 x the steps a second (32 rows
    of 32 tokens, 16 of 128).
    """
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16"))
