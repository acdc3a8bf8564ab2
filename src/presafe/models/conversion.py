"""Turn a model in a GGUF file into an ordinary one, in memory or on disk."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import Any

from presafe.runtime.dtype import Dtype


def convert(gguf: Path, folder: Path, dtype: Dtype) -> None:
    """Write a quantised GGUF file as safetensors with its tokenizer: an ordinary, trainable model.

    Args:
        gguf: The file.
        folder: Where to write.
        dtype: Type of the written weights.

    Raises:
        OSError: the disk is full.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    model: Any = AutoModelForCausalLM.from_pretrained(
        gguf.parent,
        gguf_file=gguf.name,
        quantization_config=GgufConfig(dequantize=True),  # else it stays packed where the package `kernels` is there
        dtype=getattr(torch, dtype),
        trust_remote_code=False,
    )
    forget_quantizer(model)
    try:
        model.save_pretrained(folder)
    except SafetensorError as error:  # it holds the system's error only as text: "(os error 28)"
        code = re.search(r"os error (\d+)", str(error))
        if code is None:
            raise
        raise OSError(int(code[1]), os.strerror(int(code[1]))) from error
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False).save_pretrained(folder)
    for path in folder.glob("*.safetensors"):
        shutil.copymode(folder / "config.json", path)  # safetensors writes 0600: unreadable in a shared cache


def forget_quantizer(model: Any) -> None:
    """Make a model that was read from a GGUF file an ordinary model.

    Its weights are already widened, but saving or training would use the quantizer, which supports neither.

    Args:
        model: The model; it is changed.
    """
    model.hf_quantizer, model.is_quantized = None, False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
