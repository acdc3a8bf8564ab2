"""Two processes on the CPU, set up as by `accelerate launch` with a configuration that the project ships.

They are forks of the test's own process, which has already loaded torch: a launch takes a second instead of ten.
"""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Callable
from importlib import resources
from multiprocessing import get_context
from pathlib import Path

NUM_PROCESSES = 2
KILLED = -9
"""Exit code of a process that was killed."""


def config_file(name: str) -> Path:
    return Path(str(resources.files("presafe") / "launchers" / f"{name}.yaml"))


def launched_environment(name: str, precision: str) -> dict[str, str]:
    """Return the variables that `accelerate launch --config_file NAME --mixed_precision PRECISION` sets."""
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    words = ["--config_file", str(config_file(name)), "--num_processes", str(NUM_PROCESSES)]
    arguments, file, _ = _validate_launch_command(
        launch_command_parser().parse_args(
            [*words, "--mixed_precision", precision, "--main_process_port", port, "none.py"]
        )
    )
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(NUM_PROCESSES)}
    if not arguments.use_deepspeed:
        return {**prepare_multi_gpu_env(arguments), **shared}
    arguments.deepspeed_fields_from_accelerate_config = ",".join(file.deepspeed_config)  # `launch_command` does this
    return {**prepare_deepspeed_cmd_env(arguments)[1], **shared}


def launch(name: str, work: Callable[[], None], precision: str = "no", timeout_s: float = 60) -> list[int | None]:
    """Run `work` in two processes and return their exit codes, 0 for success.

    Like a launcher, it ends the other process when one has failed.

    Args:
        name: Name of a shipped configuration.
        work: Function that each process runs.
        precision: "no" for float32, or "bf16", which the configuration says.
        timeout_s: Seconds after which both processes are killed.
    """
    variables = launched_environment(name, precision)
    context = get_context("fork")
    processes = [context.Process(target=_become, args=(rank, name, variables, work)) for rank in range(NUM_PROCESSES)]
    for process in processes:
        process.start()
    for _ in range(int(timeout_s * 10)):
        for process in processes:
            process.join(0.1 / NUM_PROCESSES)
        codes = [process.exitcode for process in processes]
        if all(code is not None for code in codes):
            return codes
        if any(code not in (None, 0) for code in codes):
            break
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
        process.join()
    return codes


def _become(rank: int, name: str, variables: dict[str, str], work: Callable[[], None]) -> None:
    import torch

    os.environ.update(variables, RANK=str(rank), LOCAL_RANK=str(rank), LOCAL_WORLD_SIZE=str(NUM_PROCESSES))
    torch.set_num_threads(1)
    if name != "ddp":
        _count_cpus_as_devices(name)
    else:
        os.environ["ACCELERATE_USE_CPU"] = "true"
    try:
        work()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def _count_cpus_as_devices(name: str) -> None:
    """Make accelerate 1.15 read its FSDP and DeepSpeed plugins without GPUs: it counts gloo's processes as devices.

    Everything else is real: sharding, gathers over gloo, checkpoints, and the reassembled weights.
    """
    from accelerate.state import DistributedType, PartialState

    os.environ |= {"ACCELERATE_TORCH_DEVICE": "cpu", "DS_ACCELERATOR": "cpu"}
    PartialState._prepare_backend = lambda self, *_: ("gloo", DistributedType.MULTI_XPU)
    if name.startswith("zero"):
        import deepspeed.ops

        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # compiled for minutes; gloo will do
