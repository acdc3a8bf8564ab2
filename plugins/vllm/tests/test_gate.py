"""Both of vLLM's interfaces, with vLLM's own records of a step."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from vllm import SamplingParams
from vllm.v1.sample.logits_processor.interface import BatchUpdate, MoveDirectionality
from vllm.v1.worker.gpu.sample.logits_processor import LogitsContext, LogitsProcRequestState

from gate_cases import REFUSAL, TAIL, write_gate
from presafe_vllm.channel import Inbox, Told
from presafe_vllm.gate import PreSafeGate
from presafe_vllm.gating.gate_file import GateError
from presafe_vllm.model import Latest
from presafe_vllm.settings import read_settings

PROMPT = [5, 6, *TAIL]
END = REFUSAL[-1]
CONFIG = SimpleNamespace(model_config=SimpleNamespace(architecture="LlamaForCausalLM"))


@pytest.fixture
def inbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Inbox]:
    """Set the environment of a worker, and give the API server's end."""
    monkeypatch.setenv("PRESAFE_GATE", str(write_gate(tmp_path)))
    monkeypatch.setenv("PRESAFE_GATE_MODELS", "own=gate")
    monkeypatch.setenv("PRESAFE_GATE_RUN", str(tmp_path))
    read_settings.cache_clear()
    own = Inbox(str(tmp_path))
    yield own
    own.close()
    read_settings.cache_clear()


def params(inbox: Inbox, mode: str = "gate") -> tuple[str, SamplingParams]:
    request = inbox.new_id()
    return request, SamplingParams(extra_args={"presafe_id": request, "presafe_mode": mode})


def update(**changes: Any) -> BatchUpdate:
    return BatchUpdate(**{"batch_size": 4, "removed": [], "added": [], "moved": [], **changes})


def tokens(gate: PreSafeGate, probabilities: list[float], ctx: Any = None) -> list[int | None]:
    """Return the token that is forced on each row of a step; None where the model may choose."""
    Latest.probabilities = torch.tensor(probabilities)
    logits = gate.apply(torch.zeros(len(probabilities), 30), ctx)
    return [int(row.argmax()) if torch.isinf(row).any() else None for row in logits]


def test_rows_of_v1_are_followed(inbox: Inbox) -> None:
    gate = PreSafeGate(CONFIG, torch.device("cpu"), False)
    (refused, first), (unread, second), (watched, third) = params(inbox), params(inbox), params(inbox, "monitor")
    outputs: list[list[int]] = [[], [], []]
    gate.update_state(
        update(
            added=[
                (0, first, PROMPT, outputs[0]),
                (1, second, [*PROMPT, 4], outputs[1]),
                (2, third, PROMPT, outputs[2]),
            ]
        )
    )
    assert tokens(gate, [0.75, 0.25, 0.75]) == [REFUSAL[0], END, None]
    assert [inbox.take(name) for name in (refused, unread, watched)] == [
        [Told(0.75, True)],
        [Told(None, True)],
        [Told(0.75, False)],
    ]
    outputs[0].append(REFUSAL[0])
    outputs[2].append(3)
    gate.update_state(update(removed=[1], moved=[(2, 1, MoveDirectionality.UNIDIRECTIONAL)]))
    assert tokens(gate, [0.0, 0.0]) == [REFUSAL[1], None]  # p of later tokens says nothing
    outputs[0].append(REFUSAL[1])
    gate.update_state(update(moved=[(0, 1, MoveDirectionality.SWAP)]))
    assert tokens(gate, [0.0, 0.0]) == [None, REFUSAL[2]]
    outputs[0].append(END)
    assert tokens(gate, [0.0, 0.0]) == [None, END]  # ignore_eos


def test_a_row_of_v1_comes_back_after_preemption(inbox: Inbox) -> None:
    gate = PreSafeGate(CONFIG, torch.device("cpu"), False)
    _, own = params(inbox)
    output: list[int] = []
    gate.update_state(update(added=[(0, own, PROMPT, output)]))
    assert tokens(gate, [0.9]) == [REFUSAL[0]]
    output.append(REFUSAL[0])
    gate.update_state(update(removed=[0]))
    gate.update_state(update(added=[(0, own, PROMPT, output)]))
    assert tokens(gate, [0.0]) == [REFUSAL[1]]


def test_logits_without_p_are_unread(inbox: Inbox) -> None:
    gate = PreSafeGate(CONFIG, torch.device("cpu"), False)
    request, own = params(inbox)
    gate.update_state(update(added=[(0, own, PROMPT, [])]))
    Latest.probabilities = torch.tensor([0.1, 0.1])  # of other rows
    assert int(gate.apply(torch.zeros(1, 30))[0].argmax()) == END
    assert inbox.take(request) == [Told(None, True)]


def states(prompts: dict[int, list[int]]) -> LogitsProcRequestState:
    """Return V2's state of requests by slot."""
    ids, lengths = torch.zeros(4, 20, dtype=torch.int64), np.zeros(4, dtype=np.int64)
    for slot, prompt in prompts.items():
        ids[slot, : len(prompt)], lengths[slot] = torch.tensor(prompt), len(prompt)
    return LogitsProcRequestState(
        device=torch.device("cpu"),
        max_num_reqs=4,
        vocab_size=30,
        all_token_ids=SimpleNamespace(gpu=ids),
        prompt_len=SimpleNamespace(np=lengths),
        prefill_len=SimpleNamespace(np=lengths),
        total_len=SimpleNamespace(gpu=None),
    )


def context(slots: list[int], seen: list[int]) -> LogitsContext:
    """Return V2's layout of a step; `seen` are the tokens that each row's token is sampled after.

    What lies on the device is left out: only first tokens may read it, and they read the prompt.
    """
    empty: dict[str, Any] = dict.fromkeys(
        ("expanded_idx_mapping", "idx_mapping", "expanded_local_pos", "input_ids", "pos")
    )
    return LogitsContext(idx_mapping_np=np.array(slots), seq_lens_upper_bound_np=np.array(seen), **empty)


def test_slots_of_v2_are_followed(inbox: Inbox) -> None:
    gate = PreSafeGate(CONFIG, states({3: PROMPT, 1: PROMPT}))
    (refused, first), (watched, second) = params(inbox), params(inbox, "monitor")
    assert gate.add_request(3, first)
    assert gate.add_request(1, second)
    assert tokens(gate, [0.9, 0.9], context([3, 1], [2, 2])) == [None, None]  # chunks of the prompts
    assert inbox.take(refused) == []
    assert tokens(gate, [0.25, 0.75], context([1, 3], [5, 5])) == [None, REFUSAL[0]]
    assert (inbox.take(refused), inbox.take(watched)) == ([Told(0.75, True)], [Told(0.25, False)])
    assert tokens(gate, [0.0, 0.0], context([3, 1], [6, 6])) == [REFUSAL[1], None]
    assert tokens(gate, [0.0], context([3], [9])) == [END]


def test_v2_waits_for_the_device_at_first_tokens_only(inbox: Inbox, monkeypatch: pytest.MonkeyPatch) -> None:
    own = states({0: PROMPT})
    gate = PreSafeGate(CONFIG, own)
    gate.add_request(0, params(inbox)[1])
    reads: list[str] = []

    class Device(torch.Tensor):
        """A tensor that notes when the host asks for it."""

        def tolist(self) -> Any:
            reads.append("p")
            return super().tolist()

    read_prompt = gate._prompt

    def noted(slot: int) -> list[int]:
        reads.append("prompt")
        return read_prompt(slot)

    monkeypatch.setattr(gate, "_prompt", noted)
    for step, expected in ((5, ["prompt", "p"]), (6, []), (7, [])):
        reads.clear()
        Latest.probabilities = torch.tensor([0.9]).as_subclass(Device)
        gate.apply(torch.zeros(1, 30), context([0], [step]))
        assert sorted(reads) == sorted(expected)


def test_several_tokens_per_step_are_refused(inbox: Inbox) -> None:
    gate = PreSafeGate(CONFIG, states({0: PROMPT}))
    gate.add_request(0, params(inbox)[1])
    with pytest.raises(GateError, match="several tokens per step"):
        gate.apply(torch.zeros(2, 30), context([0], [5]))


def test_another_architecture_is_refused(inbox: Inbox) -> None:
    config = SimpleNamespace(model_config=SimpleNamespace(architecture="MixtralForCausalLM"))
    with pytest.raises(GateError, match="serves LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM"):
        PreSafeGate(config, torch.device("cpu"), False)


def test_without_a_gate_file_nothing_is_done(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PRESAFE_GATE", raising=False)
    read_settings.cache_clear()
    config = SimpleNamespace(model_config=SimpleNamespace(architecture="MixtralForCausalLM"))
    gate = PreSafeGate(config, torch.device("cpu"), False)
    gate.update_state(update(added=[(0, SamplingParams(), PROMPT, [])]))
    assert gate.apply(torch.zeros(1, 30)).eq(0).all()
    assert not gate.add_request(0, SamplingParams())
