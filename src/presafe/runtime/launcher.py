"""Read from a launcher's environment variables which processes it started together.

`accelerate launch` and `torchrun` start one process per device and number them. They train together; everything else in
a run is done by the first process only. Importing this module loads neither torch nor accelerate.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_PREFIXES = ("ACCELERATE_", "FSDP_", "TORCHELASTIC_", "GROUP_", "ROLE_")
_KEPT = ("ACCELERATE_USE_CPU", "ACCELERATE_TORCH_DEVICE")
"""Variables that a launcher sets; those in `_KEPT` choose the device, the others the group of processes."""


def num_processes() -> int:
    """Return the number of processes that the launcher started; 1 without a launcher."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched() -> bool:
    """Return whether a launcher started this process."""
    return "WORLD_SIZE" in os.environ


def is_main_process() -> bool:
    """Return whether this is the first process, or the only one."""
    return int(os.environ.get("RANK", "0")) == 0


def weights_are_sharded() -> bool:
    """Return whether FSDP or ZeRO shards the weights, so that no device holds all of them."""
    return any(os.environ.get(f"ACCELERATE_USE_{name}", "").lower() == "true" for name in ("FSDP", "DEEPSPEED"))


@contextmanager
def launcher_hidden() -> Iterator[None]:
    """Hide the launcher, so that only this process trains in the block."""
    hidden = {
        name: os.environ.pop(name)
        for name in list(os.environ)
        if name in _VARIABLES or (name.startswith(_PREFIXES) and name not in _KEPT)
    }
    try:
        yield
    finally:
        os.environ.update(hidden)


def claim_device() -> None:
    """Make "cuda" mean the GPU with this process's number."""
    import torch

    if num_processes() > 1 and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def leave_process_group() -> None:
    """End the connection between the processes, after their last common work."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
