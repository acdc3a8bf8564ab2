"""The hours and memory of a plan, compared with a small model that is trained and decoded here.

The time of one case gives the speed of this machine; the plans of other cases must then be within `FACTOR` of their
measured times. The formulas leave out norms, activations, the optimizer's step and the interpreter, and small products
are less efficient than large ones: on the machine where this was written, all cases were within 1.7. A formula that
lacks a term (a backward pass, the heads of the vocabulary, the batch) is off by more.

The tests measure the CPU time of this thread, which excludes other processes, and take the shortest of several tries,
because every disturbance makes a try longer.
"""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import LlamaConfig, LlamaForCausalLM

from presafe.config.recipe import AlignSettings, Recipe, load_recipe
from presafe.models.engine import generate_batch
from presafe.models.family import Sampling
from presafe.planning.compute import ForwardPass, training_bytes
from presafe.planning.devices import Assumptions, Device
from presafe.planning.estimate import Plan, SamplingTask, Setup, plan
from presafe.planning.shapes import shape_of_config

FACTOR = 2.0
TRIES = 3
RANK, PROMPT, REFUSAL, VOCABULARY = 8, 16, 8, 2048
ALL = Assumptions(
    training_utilization=1,
    decoding_efficiency=1,
    answer_share=1,
    prompt_tokens=PROMPT,
    refusal_tokens=REFUSAL,
    suite_prompts=1,
    reserve_gib=0,
)
"""No guesses: the measured speed is what the machine reaches, and answers fill their budget."""
NOTHING = SamplingTask("nothing", 0, 1, 1, 1)
"""A task without prompts, because a plan needs at least one task."""


class Case(NamedTuple):
    """A training whose steps have one pass of refusals and one of answers, of `num_rows` rows each."""

    num_steps: int
    num_rows: int
    num_tokens: int
    """Tokens of an answer's row."""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[Any]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def model() -> Any:
    """Provide 3 million weights: enough for matrix products to be most of the work."""
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=256,
        intermediate_size=768,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def learner(model: Any) -> Any:
    """Provide the model with LoRA on every linear map, its activations checkpointed as on a GPU."""
    lora = LoraConfig(r=RANK, target_modules=list(AlignSettings().lora_targets), task_type="CAUSAL_LM")
    wrapped = get_peft_model(LlamaForCausalLM(model.config), lora)
    wrapped.enable_input_require_grads()
    wrapped.get_base_model().gradient_checkpointing_enable()
    return wrapped.train()


def device(*, operations: float = 1e30, bytes_read: float = 1e30) -> Device:
    """Return a device with this many operations and bytes read per second."""
    return Device(memory_gib=1, tflops=operations / 1e12, bandwidth_gbs=bytes_read / 1e9)


def recipe_of(case: Case) -> Recipe:
    """Return the case as a recipe: one system, half of the passes refusals."""
    recipe = load_recipe("qwen3-0.6b")
    align = recipe.align.model_copy(
        update={
            "systems": ("presafe",),
            "seeds": (0,),
            "max_steps": case.num_steps,
            "batch_size": case.num_rows,
            "accumulation": 2,
            "max_length": case.num_tokens,
            "lora_rank": RANK,
        }
    )
    return recipe.model_copy(
        update={
            "align": align,
            "model": recipe.model.model_copy(update={"dtype": "float32"}),
            "respond": recipe.respond.model_copy(update={"max_tokens": 10**6}),  # a row's length is what bounds it
        }
    )


def plan_of(config: Any, case: Case, tasks: list[SamplingTask], on: Device) -> Plan:
    return plan(recipe_of(case), shape_of_config(config), tasks, 0.5, Setup(on, ALL))


def shortest(work: Callable[[], object]) -> float:
    """Return the CPU seconds of this process, the shortest of several tries."""
    seconds = []
    for _ in range(TRIES):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)


def pass_of(learner: Any, num_rows: int, num_tokens: int) -> None:
    """Run a forward and backward pass of rows that are scored after their prompt."""
    ids = torch.randint(0, VOCABULARY, (num_rows, num_tokens), generator=torch.Generator().manual_seed(0))
    columns = torch.arange(PROMPT, num_tokens)
    logits = learner(input_ids=ids, attention_mask=torch.ones_like(ids), logits_to_keep=columns, use_cache=False).logits
    torch.autograd.backward(torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, columns].flatten()))


def training_seconds(learner: Any, case: Case) -> float:
    """Return the seconds of a training here."""
    optimizer = torch.optim.AdamW([p for p in learner.parameters() if p.requires_grad], lr=1e-4)

    def train() -> None:
        for _ in range(case.num_steps):
            pass_of(learner, case.num_rows, PROMPT + REFUSAL)
            pass_of(learner, case.num_rows, case.num_tokens)
            optimizer.step()
            optimizer.zero_grad()

    return shortest(train)


def test_planned_training_time_is_near_measured(model: Any, learner: Any) -> None:
    base = Case(num_steps=1, num_rows=4, num_tokens=96)
    training_seconds(learner, base)  # warms up
    operations = plan_of(model.config, base, [NOTHING], device()).training.flops / training_seconds(learner, base)
    for case in (Case(2, 2, 256), Case(3, 8, 48), Case(1, 1, 384)):
        planned = plan_of(model.config, case, [NOTHING], device(operations=operations)).training.gpu_hours * 3600
        assert planned / FACTOR < training_seconds(learner, case) < planned * FACTOR, (case, planned)


def decoding_seconds(model: Any, num_rows: int, num_tokens: int) -> float:
    """Return the seconds to decode this many rows and tokens; no row stops early."""
    prompts = torch.randint(0, VOCABULARY, (num_rows, PROMPT), generator=torch.Generator().manual_seed(0)).tolist()
    return shortest(
        lambda: generate_batch(
            model,
            prompts,
            max_new_tokens=num_tokens,
            stop_ids=[-1],
            sampling=Sampling(temperature=0.0),
            seeds=[0] * num_rows,
        )
    )


def planned_decoding(model: Any, num_prompts: int, num_rows: int, num_tokens: int, on: Device) -> float:
    """Return the planned seconds for prompts in batches of `num_rows`."""
    task = SamplingTask("answers", num_prompts, num_tokens, num_rows, batch_tokens=10**6)
    return plan_of(model.config, Case(1, 1, 32), [task], on).decoding[0].gpu_hours * 3600


@pytest.mark.parametrize(
    ("base", "bound", "others"),
    [
        # few rows: a step is as long as reading the weights takes, so two rows cost what one costs
        ((1, 24), "bytes_read", [(1, 48), (2, 24)]),
        # many rows: a step is as long as its products take, so twice the rows take twice as long
        ((32, 24), "operations", [(64, 24), (32, 64)]),
    ],
)
def test_planned_decoding_time_is_near_measured(model: Any, base: Any, bound: str, others: Any) -> None:
    decoding_seconds(model, *base)  # warms up
    # a device of 1 a second takes as many seconds as there are bytes or operations
    amount = planned_decoding(model, base[0], base[0], base[1], device(**{bound: 1.0}))
    here = device(**{bound: amount / decoding_seconds(model, *base)})
    for num_rows, num_tokens in others:
        planned = planned_decoding(model, num_rows, num_rows, num_tokens, here)
        measured = decoding_seconds(model, num_rows, num_tokens)
        assert planned / FACTOR < measured < planned * FACTOR, (num_rows, num_tokens, planned)
        # three batches are planned as three times one
        assert planned_decoding(model, 3 * num_rows, num_rows, num_tokens, here) == pytest.approx(3 * planned)


class Held(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of live storages that operations created, and their peak."""

    def __init__(self, known: list[torch.Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self.seen = {tensor.untyped_storage()._cdata for tensor in known}

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, torch.Tensor) and leaf.untyped_storage()._cdata not in self.seen:
                self._hold(leaf.untyped_storage())
        return result

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        self.seen.add(key)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size


@pytest.mark.parametrize(("num_rows", "num_tokens"), [(2, 256), (8, 64)])
def test_training_bytes_match_the_measured_peak(model: Any, learner: Any, num_rows: int, num_tokens: int) -> None:
    """Compare weights, adapter, gradients and moments exactly, and the activations of a checkpointed step nearly."""
    trained = [p for p in learner.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    pass_of(learner, 1, 32)
    optimizer.step()  # its moments are there from now on, and so are the gradients
    moments = [v for s in optimizer.state.values() for k, v in s.items() if k != "step"]
    gradients = [p.grad for p in trained]
    fixed = [*{id(p): p for p in learner.parameters()}.values(), *moments, *gradients]
    shape = shape_of_config(model.config)
    planned = training_bytes(
        shape,
        RANK,
        AlignSettings().lora_targets,
        ForwardPass(num_rows, num_tokens, num_logits=num_rows * (num_tokens - PROMPT)),
        dtype="float32",
        checkpointing=True,
    )
    head = 16 * (256 + 1)  # φ: 256 weights and a bias, which this model has not
    assert sum(tensor.nbytes for tensor in fixed) == planned.weights + planned.adapter - head
    gc.collect()
    with Held(fixed) as held:
        pass_of(learner, num_rows, num_tokens)
    assert held.peak == pytest.approx(planned.activations, rel=0.25)
