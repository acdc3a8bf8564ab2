"""The processes that a launcher started together, as its environment variables tell.

`accelerate launch` and `torchrun` start one process a device and number them. They train together; whatever else a
run does, the first one does alone. Loads neither torch nor accelerate until there is a device to claim.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

_NUMBERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_PREFIXES = ("ACCELERATE_", "FSDP_", "TORCHELASTIC_", "GROUP_", "ROLE_")
_KEPT = ("ACCELERATE_USE_CPU", "ACCELERATE_TORCH_DEVICE")
"""What a launcher sets, and what of it says where to compute rather than with whom."""


def num_processes() -> int:
    """How many processes the launcher started; 1 without one."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched() -> bool:
    """Did a launcher start this process, be it alone?"""
    return "WORLD_SIZE" in os.environ


def is_main_process() -> bool:
    """Is this the first process, or the only one?"""
    return int(os.environ.get("RANK", "0")) == 0


def weights_are_sharded() -> bool:
    """Will FSDP or ZeRO cut the weights into shards, so that no device ever holds them whole?"""
    return any(os.environ.get(f"ACCELERATE_USE_{name}", "").lower() == "true" for name in ("FSDP", "DEEPSPEED"))


@contextmanager
def launcher_hidden() -> Iterator[None]:
    """Hide the launcher, so that what is trained inside is trained by this process only."""
    hidden = {
        name: os.environ.pop(name)
        for name in list(os.environ)
        if name in _NUMBERS or (name.startswith(_PREFIXES) and name not in _KEPT)
    }
    try:
        yield
    finally:
        os.environ.update(hidden)


def claim_device() -> None:
    """Make the GPU of this process's number the one that "cuda" means."""
    import torch

    if num_processes() > 1 and torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))


def leave_process_group() -> None:
    """End the processes' connection, once they have nothing more to do together."""
    import torch

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
