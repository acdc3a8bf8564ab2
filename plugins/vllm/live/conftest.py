"""A real vLLM on loopback with an aligned SmolThink, gated, monitored and open, started once.

The run behind it is real, and short: its head has seen four steps. What the tests compare holds for any head.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import SMALL

from presafe.config.recipe import load_recipe
from presafe.models.loading import load_model, release_model
from presafe.stages.run_folder import RunFolder
from presafe.workflows.export import export
from presafe.workflows.gate import calibrate
from presafe.workflows.run import run_stages
from vllm_server import ENVIRONMENT, Server, gated_words, start, stop, wait


@pytest.fixture(scope="session", autouse=True)
def environment() -> None:
    """Skip without vLLM's environment."""
    if not (ENVIRONMENT / "bin" / "python").exists():
        pytest.skip(f"no environment with vLLM at PRESAFE_VLLM ({ENVIRONMENT}); `make vllm` builds one")


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Align SmolThink in four steps, and calibrate its gate."""
    folder = tmp_path_factory.mktemp("live")
    (folder / "small.toml").write_text(SMALL, encoding="utf-8")
    made = run_stages(load_recipe(folder / "small.toml"), folder / "run", "align")
    calibrate(made, "presafe", 0.5)
    release_model()
    return made


@pytest.fixture(scope="session")
def system(run: RunFolder) -> Path:
    return run.path / "alignment" / "presafe"


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write SmolThink as a plain folder."""
    folder = tmp_path_factory.mktemp("base") / "smolthink"
    loaded = load_model("smolthink")
    loaded.model.save_pretrained(folder)
    loaded.renderer.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def exported(system: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out")
    export(system, out, merge=True, classifier=True, gguf=None)
    return out


@pytest.fixture(scope="session")
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
