"""What a recipe would take on a device: memory, tokens, hours.

training   operations of all rows / (operations a second · utilisation · GPUs)
decoding   a step reads the weights and the cache once, and costs 2 operations a weight and row: the slower of the two
           / efficiency; as many rows as `batch_size`, or as the cache holds when each is half written
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from presafe.methods.registry import trained
from presafe.planning.compute import BYTES, Row, TrainingBytes, cache_bytes, training_bytes, training_flops
from presafe.planning.devices import Assumptions, Device
from presafe.planning.shapes import ModelShape
from presafe.recipe import AlignSettings, Recipe

GIB = 1024**3
Launcher = Literal["ddp", "fsdp2", "zero2", "zero3"]
CUTS_WEIGHTS: tuple[Launcher, ...] = ("fsdp2", "zero3")
"""Launchers under which a GPU keeps only its share of the weights."""


class Answerer(NamedTuple):
    """A model that answers: its shape, and the type of its weights and cache."""

    shape: ModelShape
    dtype: str


class Sampling(NamedTuple):
    """Prompts that are answered: how many, with which budget of tokens, how many together, in how large a cache."""

    what: str
    num_prompts: int
    max_tokens: int
    batch_size: int
    batch_tokens: int
    guessed: bool = False
    """Is the number of prompts an assumption?"""
    by: Answerer | None = None
    """Who answers, where it is not the recipe's model: a teacher."""


class Decoding(NamedTuple):
    """What answering costs."""

    what: str
    num_prompts: int
    expected_tokens: float
    most_tokens: int
    gpu_hours: float
    most_gpu_hours: float
    guessed: bool


class Training(NamedTuple):
    """What one or more trainings cost."""

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
        """Both."""
        return sum(self)


class Memory(NamedTuple):
    """Bytes on each device. A training, the model that answers and its teacher are never there together."""

    training: TrainingBytes
    sampling: SamplingBytes
    teacher: SamplingBytes | None
    """Of a teacher that is another model."""
    reserve: float

    def gib(self, part: TrainingBytes | SamplingBytes) -> float:
        """GiB of one of them, with the reserve."""
        return (part.total() + self.reserve) / GIB


class Plan(NamedTuple):
    """A recipe on a device."""

    num_parameters: int
    num_adapter_parameters: int
    memory: Memory
    decoding: tuple[Decoding, ...]
    training: Training

    def gpu_hours(self) -> float:
        """Expected hours of one GPU, the classifier's minutes apart."""
        return self.training.gpu_hours + sum(each.gpu_hours for each in self.decoding)


def plan(
    recipe: Recipe,
    shape: ModelShape,
    samplings: Sequence[Sampling],
    refused_share: float,
    device: Device,
    assumed: Assumptions,
    *,
    num_gpus: int = 1,
    launcher: Launcher = "ddp",
) -> Plan:
    """Estimate a recipe.

    Args:
        recipe: The recipe.
        shape: Its model.
        samplings: What is answered over all stages.
        refused_share: Share of the alignment queries whose target is a refusal, in [0, 1].
        device: The GPU.
        assumed: What is assumed.
        num_gpus: GPUs that train together.
        launcher: How they share the work.
    """
    align, dtype = recipe.align, recipe.model.dtype
    adapter = shape.num_adapter_parameters(align.lora_rank, align.lora_targets)
    own = Answerer(shape, dtype)
    others = [each for each in samplings if each.by is not None]
    memory = Memory(
        training=training_bytes(
            shape,
            adapter,
            dtype=dtype,
            rank=align.lora_rank,
            targets=align.lora_targets,
            num_rows=align.batch_size,
            num_tokens=align.max_length,
            num_logits=0,  # on a GPU the head is fused with the loss, which never holds the logits
            checkpointing=True,
            shards=num_gpus if launcher in CUTS_WEIGHTS else 1,
        ),
        sampling=_sampling_bytes(own, [each for each in samplings if each.by is None], assumed),
        teacher=_sampling_bytes(others[0].by, others, assumed) if others and others[0].by else None,
        reserve=assumed.reserve_gib * GIB,
    )
    budget = recipe.respond.max_tokens
    return Plan(
        num_parameters=shape.num_parameters(),
        num_adapter_parameters=adapter,
        memory=memory,
        decoding=tuple(_decoding(each.by or own, each, device, assumed) for each in samplings),
        training=_training(shape, align, adapter, refused_share, budget, device, assumed),
    )


def _sampling_bytes(by: Answerer, samplings: Sequence[Sampling], assumed: Assumptions) -> SamplingBytes:
    """The weights, and the largest cache that one of the samplings fills."""
    cached = max(
        min(each.batch_tokens, each.batch_size * (each.max_tokens + assumed.prompt_tokens)) for each in samplings
    )
    return SamplingBytes(BYTES[by.dtype] * by.shape.num_parameters(), cached * cache_bytes(*by))


def _decoding(by: Answerer, work: Sampling, device: Device, assumed: Assumptions) -> Decoding:
    expected = work.num_prompts * work.max_tokens * assumed.answer_share
    most = work.num_prompts * work.max_tokens
    return Decoding(
        what=work.what,
        num_prompts=work.num_prompts,
        expected_tokens=expected,
        most_tokens=most,
        gpu_hours=expected * seconds_a_token(*by, work, work.max_tokens * assumed.answer_share, device, assumed) / 3600,
        most_gpu_hours=most * seconds_a_token(*by, work, work.max_tokens, device, assumed) / 3600,
        guessed=work.guessed,
    )


def seconds_a_token(
    shape: ModelShape, dtype: str, work: Sampling, num_tokens: float, device: Device, assumed: Assumptions
) -> float:
    """Seconds of one GPU a token, where answers grow to `num_tokens`: half of that is cached on average."""
    weights = shape.num_layer_weights() + shape.hidden_size * shape.vocab_size
    held = assumed.prompt_tokens + num_tokens / 2
    rows = min(work.batch_size, max(1.0, work.batch_tokens / held))
    reading = (BYTES[dtype] * weights + rows * held * cache_bytes(shape, dtype)) / (device.bandwidth_gbs * 1e9)
    computing = 2 * weights * rows / (device.tflops * 1e12)
    return max(reading, computing) / assumed.decoding_efficiency / rows


def _training(
    shape: ModelShape,
    align: AlignSettings,
    adapter: int,
    refused_share: float,
    budget: int,
    device: Device,
    assumed: Assumptions,
) -> Training:
    """All trainings of a recipe; a long answer counts up to the longest row that is trained on."""
    answer = min(budget * assumed.answer_share, align.max_length - assumed.prompt_tokens)
    kinds = [
        (refused_share, Row(assumed.prompt_tokens + assumed.refusal_tokens, assumed.refusal_tokens)),
        (1 - refused_share, Row(assumed.prompt_tokens + answer, answer)),
    ]
    trainings = len(trained(align.systems)) * len(align.seeds)
    rows = trainings * align.max_steps * align.batch_size * align.accumulation
    flops = rows * sum(share * training_flops(shape, row, adapter, checkpointing=True) for share, row in kinds)
    return Training(
        num_trainings=trainings,
        num_steps=align.max_steps,
        num_rows=rows,
        num_tokens=rows * sum(share * row.num_tokens for share, row in kinds),
        flops=flops,
        gpu_hours=flops / (device.tflops * 1e12 * assumed.training_utilisation) / 3600,
    )
