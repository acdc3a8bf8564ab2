"""Estimate of a recipe on a device: memory, tokens, hours.

training   operations of all rows / (operations per second · utilization · GPUs)
decoding   a step reads the weights and the cache once, and takes 2 operations per weight and row: the slower of the two
           / efficiency. It holds `batch_size` rows, or as many as fit the cache when each is half written
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from presafe.config.recipe import AlignSettings, Recipe
from presafe.methods.registry import trained
from presafe.planning.compute import (
    BYTES,
    ForwardPass,
    Row,
    TrainingBytes,
    cache_bytes,
    training_bytes,
    training_flops,
)
from presafe.planning.devices import Assumptions, Device
from presafe.planning.shapes import ModelShape

GIB = 1024**3
Launcher = Literal["ddp", "fsdp2", "zero2", "zero3"]
SHARDS_WEIGHTS: tuple[Launcher, ...] = ("fsdp2", "zero3")
"""Launchers under which each GPU holds only its share of the weights."""


class Setup(NamedTuple):
    """The hardware of a plan, and the assumptions about it."""

    device: Device
    assumed: Assumptions
    num_gpus: int = 1
    """GPUs that train together."""
    launcher: Launcher = "ddp"
    """How they share the work."""
    samplers: int = 1
    """GPUs that sample the recipe's model side by side."""
    teacher_samplers: int = 1
    """GPUs that sample a teacher that is another model."""
    split: int = 1
    """GPUs over which each copy is split that samples elsewhere."""


class Answerer(NamedTuple):
    """A model that answers: its shape, and the type of its weights and cache."""

    shape: ModelShape
    dtype: str


class SamplingTask(NamedTuple):
    """Prompts to answer: their number, token budget, batch size and cache size."""

    what: str
    num_prompts: int
    max_tokens: int
    batch_size: int
    batch_tokens: int
    guessed: bool = False
    """Whether the number of prompts is an assumption."""
    answerer: Answerer | None = None
    """A teacher that answers; None is the recipe's model."""


class DecodingCost(NamedTuple):
    """Cost of answering the prompts of one task."""

    what: str
    num_prompts: int
    expected_tokens: float
    most_tokens: int
    gpu_hours: float
    most_gpu_hours: float
    guessed: bool


class TrainingCost(NamedTuple):
    """Cost of one or more trainings."""

    num_trainings: int
    num_steps: int
    num_rows: int
    num_tokens: float
    flops: float
    gpu_hours: float


class SamplingBytes(NamedTuple):
    """Bytes on one device while a model answers."""

    weights: float
    cache: float

    def total(self) -> float:
        """Return the sum of both."""
        return sum(self)


class Memory(NamedTuple):
    """Bytes on each device. A training, the model that answers and its teacher are never loaded together."""

    training: TrainingBytes
    sampling: SamplingBytes
    teacher: SamplingBytes | None
    """Memory of a teacher that is another model."""
    reserve: float

    def gib(self, use: TrainingBytes | SamplingBytes) -> float:
        """Return the GiB of one use of the device, with the reserve."""
        return (use.total() + self.reserve) / GIB


class Plan(NamedTuple):
    """A recipe on a device."""

    num_parameters: int
    num_adapter_parameters: int
    memory: Memory
    decoding: tuple[DecodingCost, ...]
    training: TrainingCost
    elapsed_hours: float
    """Hours from start to end, without the minutes of the classifier and of servers that start."""

    def gpu_hours(self) -> float:
        """Return the expected hours of one GPU, without the minutes of the classifier."""
        return self.training.gpu_hours + sum(cost.gpu_hours for cost in self.decoding)


def plan(recipe: Recipe, shape: ModelShape, tasks: Sequence[SamplingTask], refused_share: float, setup: Setup) -> Plan:
    """Estimate a recipe.

    Args:
        recipe: The recipe.
        shape: Its model.
        tasks: All that is answered, over all stages.
        refused_share: Share of the alignment queries whose target is a refusal, in [0, 1].
        setup: The hardware, and the assumptions about it.
    """
    align = recipe.align
    own = Answerer(shape, recipe.model.dtype)
    decoding = [_decoding_cost(task.answerer or own, task, setup) for task in tasks]
    training = _training_cost(shape, align, refused_share, recipe.respond.max_tokens, setup)
    return Plan(
        num_parameters=shape.num_parameters(),
        num_adapter_parameters=shape.num_adapter_parameters(align.lora_rank, align.lora_targets),
        memory=_memory(align, own, tasks, setup),
        decoding=tuple(decoding),
        training=training,
        elapsed_hours=training.gpu_hours / setup.num_gpus
        + sum(
            cost.gpu_hours / (setup.teacher_samplers if task.answerer else setup.samplers)
            for cost, task in zip(decoding, tasks, strict=True)
        ),
    )


def _memory(align: AlignSettings, own: Answerer, tasks: Sequence[SamplingTask], setup: Setup) -> Memory:
    by_teacher = [task for task in tasks if task.answerer is not None]
    teacher = by_teacher[0].answerer if by_teacher else None
    forward = ForwardPass(
        num_rows=align.batch_size,
        num_tokens=align.max_length,
        num_logits=0,  # on a GPU the head is fused with the loss, which never holds the logits
    )
    return Memory(
        training=training_bytes(
            own.shape,
            align.lora_rank,
            align.lora_targets,
            forward,
            dtype=own.dtype,
            checkpointing=True,
            shards=setup.num_gpus if setup.launcher in SHARDS_WEIGHTS else 1,
        ),
        sampling=_sampling_bytes(own, [task for task in tasks if task.answerer is None], setup),
        teacher=_sampling_bytes(teacher, by_teacher, setup) if teacher else None,
        reserve=setup.assumed.reserve_gib * GIB,
    )


def _sampling_bytes(answerer: Answerer, tasks: Sequence[SamplingTask], setup: Setup) -> SamplingBytes:
    """Return the bytes of the weights, and of the largest cache that one of the tasks fills, on each GPU of a copy."""
    prompt = setup.assumed.prompt_tokens
    cached = max(min(task.batch_tokens, task.batch_size * (task.max_tokens + prompt)) for task in tasks)
    weights = BYTES[answerer.dtype] * answerer.shape.num_parameters()
    return SamplingBytes(weights / setup.split, cached * cache_bytes(answerer.shape, answerer.dtype) / setup.split)


def _decoding_cost(answerer: Answerer, task: SamplingTask, setup: Setup) -> DecodingCost:
    device, assumed = setup.device, setup.assumed
    most_tokens = task.num_prompts * task.max_tokens
    expected_tokens = most_tokens * assumed.answer_share
    expected_length = task.max_tokens * assumed.answer_share
    expected_seconds = expected_tokens * seconds_per_token(answerer, task, expected_length, device, assumed)
    most_seconds = most_tokens * seconds_per_token(answerer, task, task.max_tokens, device, assumed)
    return DecodingCost(
        what=task.what,
        num_prompts=task.num_prompts,
        expected_tokens=expected_tokens,
        most_tokens=most_tokens,
        gpu_hours=expected_seconds / 3600,
        most_gpu_hours=most_seconds / 3600,
        guessed=task.guessed,
    )


def seconds_per_token(
    answerer: Answerer, task: SamplingTask, num_tokens: float, device: Device, assumed: Assumptions
) -> float:
    """Return the seconds of one GPU per token.

    Args:
        answerer: The model.
        task: The prompts; its batch size and cache size bound the rows per step.
        num_tokens: Length to which answers grow; half of it is cached on average.
        device: The GPU.
        assumed: Assumptions about the GPU and the data.
    """
    shape, size = answerer.shape, BYTES[answerer.dtype]
    weights = shape.num_layer_weights() + shape.hidden_size * shape.vocab_size
    cached = assumed.prompt_tokens + num_tokens / 2
    rows = min(task.batch_size, max(1.0, task.batch_tokens / cached))
    bytes_read = size * weights + rows * cached * cache_bytes(shape, answerer.dtype)
    reading = bytes_read / (device.bandwidth_gbs * 1e9)
    computing = 2 * weights * rows / (device.tflops * 1e12)
    return max(reading, computing) / assumed.decoding_efficiency / rows


def _training_cost(
    shape: ModelShape, align: AlignSettings, refused_share: float, budget: int, setup: Setup
) -> TrainingCost:
    """Return the cost of all trainings of a recipe; a long answer counts up to the longest row that is trained on."""
    device, assumed = setup.device, setup.assumed
    num_adapter = shape.num_adapter_parameters(align.lora_rank, align.lora_targets)
    answer_tokens = min(budget * assumed.answer_share, align.max_length - assumed.prompt_tokens)
    shares = [
        (refused_share, Row(assumed.prompt_tokens + assumed.refusal_tokens, assumed.refusal_tokens)),
        (1 - refused_share, Row(assumed.prompt_tokens + answer_tokens, answer_tokens)),
    ]
    num_trainings = len(trained(align.systems)) * len(align.seeds)
    num_rows = num_trainings * align.max_steps * align.batch_size * align.accumulation
    row_flops = sum(share * training_flops(shape, row, num_adapter, checkpointing=True) for share, row in shares)
    flops = num_rows * row_flops
    return TrainingCost(
        num_trainings=num_trainings,
        num_steps=align.max_steps,
        num_rows=num_rows,
        num_tokens=num_rows * sum(share * row.num_tokens for share, row in shares),
        flops=flops,
        gpu_hours=flops / (device.tflops * 1e12 * assumed.training_utilization) / 3600,
    )
