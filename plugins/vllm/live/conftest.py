"""A real vLLM on loopback with an aligned tiny model: gated, monitored and open, started once.

The model is a random Llama over single bytes, aligned by a real run of a few steps. The minutes go into vLLM's start,
and what is compared (answers, p, thresholds) holds for any weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_models import libraries, renderer, tokenizer  # noqa: F401
from tiny_run import recipe  # noqa: F401

from presafe.config.recipe import load_recipe
from presafe.records import Prompt
from presafe.stages.run_folder import RunFolder
from presafe.workflows.export import export
from presafe.workflows.gate import calibrate
from presafe.workflows.run import run_stages
from vllm_server import ENVIRONMENT, Server, gated_words, start, stop, wait

THINGS = ("stone", "leaf", "river", "moon", "house")


@pytest.fixture(scope="session", autouse=True)
def environment() -> None:
    """Skip without vLLM's environment."""
    if not (ENVIRONMENT / "bin" / "python").exists():
        pytest.skip(f"no environment with vLLM at PRESAFE_VLLM ({ENVIRONMENT}); `make vllm` builds one")


@pytest.fixture(scope="module")
def base(environment: None, recipe: Path, tokenizer: Any) -> Path:  # noqa: F811
    """Write the model that is aligned: vLLM's attention on CPUs needs heads of 32 numbers."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=260,
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        initializer_range=0.2,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    folder = recipe.parent / "student"
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def run(base: Path, recipe: Path) -> RunFolder:  # noqa: F811
    """Align it, and calibrate a gate that refuses about half of what is harmless."""
    made = run_stages(load_recipe(recipe), recipe.parent / "run", "align")
    calibrate(made, "presafe", 0.5)
    return made


@pytest.fixture(scope="module")
def system(run: RunFolder) -> Path:
    return run.path / "alignment" / "presafe"


@pytest.fixture(scope="module")
def exported(system: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    export(system, out, merge=True, classifier=True, gguf=None)
    return out


@pytest.fixture(scope="module")
def server(base: Path, system: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Start the server, wait until it answers, and end it."""
    folder = tmp_path_factory.mktemp("server")
    variables = {
        "PRESAFE_GATE": str(system / "gate.json"),
        "PRESAFE_GATE_MODELS": "own=gate,watched=monitor,base=open",
        "PRESAFE_GATE_AUDIT": str(folder / "audit.jsonl"),
    }
    own = start(folder, base, gated_words(system), **variables)
    try:
        wait(own)
        yield own
    finally:
        stop(own)


@pytest.fixture(scope="module")
def prompts() -> list[Prompt]:
    """Return 20 harmless texts."""
    texts = [f"{color} {thing}" for color in ("red", "blue", "a grey", "the old") for thing in THINGS]
    return [
        Prompt(id=f"own-{number}", text=text, category="", split="", license="", expect="comply")
        for number, text in enumerate(texts)
    ]
