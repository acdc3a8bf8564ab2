"""Read PreSafe's decision inside vLLM, from the forward pass that vLLM does anyway, and gate answers on it.

The decision is p = σ(w·h + b) at the last prompt token before the thought. The plug-in does nothing unless the
environment variable PRESAFE_GATE names a gate file (`settings`).

    model       computes p of every row that a token is sampled from
    rows        decides what is forced: nothing, a refusal, or the end of the turn
    gate        connects `rows` to vLLM's two interfaces of logits processors
    channel     brings p from the worker to the API server, before the token is sampled
    middleware  closes routes and names, names requests, and gives the client the decision back
    served      checks at the start that what is served is what the gate file describes
    settings    the gate file and the environment
    gating      what it shares with `presafe serve`: a link to that package's files, which need nothing else of it
"""

from __future__ import annotations

import os
import tempfile

ARCHITECTURES = {
    "LlamaForCausalLM": "PreSafeLlama",
    "Qwen2ForCausalLM": "PreSafeQwen2",
    "Qwen3ForCausalLM": "PreSafeQwen3",
}
"""Architectures that are served with a head, and our class for each."""


def register() -> None:
    """Put our classes under vLLM's names of the architectures; vLLM calls this in each of its processes.

    The first process is the API server. It makes the folder in which its workers find it, and they inherit its name.

    Raises:
        GateError: the gate file cannot be used. vLLM then does not start.
    """
    from presafe_vllm.settings import RUN_VARIABLE, read_settings

    if read_settings() is None:
        return
    if RUN_VARIABLE not in os.environ:
        os.environ[RUN_VARIABLE] = tempfile.mkdtemp(prefix="presafe-gate-")
    from vllm import ModelRegistry

    for architecture, name in ARCHITECTURES.items():
        ModelRegistry.register_model(architecture, f"presafe_vllm.model:{name}")
