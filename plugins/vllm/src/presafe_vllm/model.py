"""The models that vLLM builds, with the head beside the language-model head.

Both of vLLM's model runners call `compute_logits` with just the rows that a token is sampled from: the hidden state of
each request's last token after the final norm, adapter included. It is called outside the compiled graph and the CUDA
graphs, which hold the decoder only. So p costs one product of a matrix and a vector per step.
"""

from __future__ import annotations

from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from vllm.model_executor.models.llama import LlamaForCausalLM
from vllm.model_executor.models.qwen2 import Qwen2ForCausalLM
from vllm.model_executor.models.qwen3 import Qwen3ForCausalLM

from presafe_vllm.gating.gate_file import GateError
from presafe_vllm.settings import Settings, read_settings


class Latest:
    """What the logits processor of the same process reads in the same step."""

    probabilities: torch.Tensor | None = None
    """p of each row of the logits."""


def read_head(settings: Settings, hidden_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the head's weight (hidden size) and bias (1), in float32.

    Args:
        settings: What the operator has set.
        hidden_size: Hidden size of the served model.

    Raises:
        GateError: the head reads elsewhere than here, is damaged, or is one of another model.
    """
    try:
        with safe_open(str(settings.head), framework="pt") as file:
            declared = file.metadata() or {}
            weight, bias = file.get_tensor("weight").float(), file.get_tensor("bias").float()
    except (OSError, SafetensorError) as error:
        raise GateError(f"{settings.head} cannot be read as a head: {error}.") from error
    if declared.get("position", "prompt_end") != "prompt_end" or "layer" in declared:
        raise GateError(f"{settings.head} does not read the prompt's end after the final norm, as this plug-in does.")
    if weight.shape != (1, hidden_size) or bias.shape != (1,):
        raise GateError(
            f"{settings.head} has weights of shape {tuple(weight.shape)}; the served model's hidden size is "
            f"{hidden_size}."
        )
    if not (torch.isfinite(weight).all() and torch.isfinite(bias).all()):
        raise GateError(f"{settings.head} holds a number that is not finite.")
    return weight[0], bias


class _WithHead:
    """A causal language model that leaves p of each sampled row in `Latest`."""

    def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
        super().__init__(vllm_config=vllm_config, prefix=prefix)  # type: ignore[call-arg]
        settings = read_settings()
        if settings is None:
            raise GateError("PRESAFE_GATE is not set in this process, but in the one that started it.")
        if vllm_config.speculative_config is not None:
            raise GateError(
                "speculative decoding writes several tokens per step, and the gate reads one: leave it out."
            )
        if getattr(vllm_config.parallel_config, "enable_batch_sharded_sampling", False):
            raise GateError("batch-sharded sampling goes round `compute_logits`: leave it out.")
        weight, bias = read_head(settings, vllm_config.model_config.get_hidden_size())
        self.presafe_weight, self.presafe_bias = weight, bias

    def compute_logits(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor | None:
        """Return the model's logits; p of the same rows is left in `Latest`."""
        if self.presafe_weight.device != hidden_states.device:
            self.presafe_weight = self.presafe_weight.to(hidden_states.device)
            self.presafe_bias = self.presafe_bias.to(hidden_states.device)
        Latest.probabilities = torch.sigmoid(hidden_states.float() @ self.presafe_weight + self.presafe_bias)
        logits: torch.Tensor | None = super().compute_logits(  # type: ignore[misc]
            hidden_states, *args, **kwargs
        )
        return logits


class PreSafeLlama(_WithHead, LlamaForCausalLM):
    """Llama, and models of its architecture (R1-Distill-Llama, SmolLM2)."""


class PreSafeQwen2(_WithHead, Qwen2ForCausalLM):
    """Qwen2 and Qwen2.5 (R1-Distill-Qwen, QwQ)."""


class PreSafeQwen3(_WithHead, Qwen3ForCausalLM):
    """Qwen3."""
