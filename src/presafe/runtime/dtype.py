"""Find the type of weights with which this machine computes fastest."""

from __future__ import annotations

from typing import Literal

Dtype = Literal["float32", "bfloat16"]
"""Type of weights and of computations with them; the weights of LoRA are always trained in float32."""


def fastest_dtype() -> Dtype:
    """Return bfloat16 if the hardware multiplies it, else float32.

    It does on a GPU (Ampere or later) and on a CPU with AMX or AVX512-BF16. Other CPUs take several times longer in
    bfloat16 than in float32.
    """
    import torch

    if torch.cuda.is_available():
        in_hardware = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities: dict[str, bool] = getattr(torch.cpu, "get_capabilities", dict)()  # not in older releases
        in_hardware = any(capabilities.get(unit, False) for unit in ("amx_bf16", "avx512_bf16"))
    return "bfloat16" if in_hardware else "float32"
