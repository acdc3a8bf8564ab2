"""Which type of weights this machine computes fastest with."""

from __future__ import annotations

from typing import Literal

Dtype = Literal["float32", "bfloat16"]
"""Type of weights and of what is computed with them; LoRA's own weights are trained in float32 either way."""


def fastest_dtype() -> Dtype:
    """bfloat16 where hardware multiplies it: a GPU (Ampere or later), a CPU with AMX or AVX512-BF16; float32 elsewhere.

    A CPU without such units takes several times longer in bfloat16 than in float32.
    """
    import torch

    if torch.cuda.is_available():
        in_hardware = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # older releases do not tell
        in_hardware = any(capabilities.get(unit, False) for unit in ("amx_bf16", "avx512_bf16"))
    return "bfloat16" if in_hardware else "float32"
