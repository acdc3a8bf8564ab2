"""Write weights for other programs, whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from presafe.models.loading import LoadedModel
from presafe.runs.io import disk_error

MAX_SHARD = "5GB"
"""Largest file of weights."""


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Give a folder to write into, which gets its name when it is complete.

    Args:
        target: The name; nothing is there yet.

    Raises:
        RunError: it cannot be written.
    """
    from safetensors import SafetensorError

    part = target.with_name(f".{target.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        yield part
        for path in part.glob("*.safetensors"):
            path.chmod(0o644)  # safetensors writes for the owner alone
        os.replace(part, target)
    except (OSError, SafetensorError) as error:  # safetensors wraps the system's error, in words
        raise disk_error(target, error if isinstance(error, OSError) else OSError(str(error))) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def save_model(loaded: LoadedModel, folder: Path) -> None:
    """Write a model, its tokenizer and its chat template.

    Args:
        loaded: The model.
        folder: Where to write.
    """
    loaded.model.save_pretrained(folder, max_shard_size=MAX_SHARD)
    loaded.renderer.tokenizer.save_pretrained(folder)
