"""Which type of weights this machine computes fastest with."""

from __future__ import annotations

from typing import Literal

Dtype = Literal["float32", "bfloat16"]
"""Type of weights and of what is computed with them; LoRA's own weights are trained in float32 either way."""


def fastest_dtype() -> Dtype:
    """bfloat16 where hardware multiplies matrices of it, a GPU or a CPU with AMX; float32 elsewhere.

    Without such units bfloat16 is several times slower than float32.
    """
    import torch

    if torch.cuda.is_available() or torch.cpu.get_capabilities().get("amx_bf16", False):
        return "bfloat16"
    return "float32"
