"""The lines of the guides that start vLLM are run as they stand, with real files in place of their names."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import httpx
import pytest

from presafe.models.rendering import Renderer
from presafe.runs.io import read_json
from presafe.stages.run_folder import RunFolder
from vllm_server import ENVIRONMENT, Server, start_line, stop, wait

ROOT = Path(__file__).parents[3]
SMALLER = "--dtype float32 --max-model-len 512 --max-num-seqs 16 --enforce-eager"
"""Words that this machine needs and a guide does not say."""


def lines_of(file: str) -> list[str]:
    """Return the command lines of a page that start vLLM, each on one line, with their variables."""
    text = (ROOT / file).read_text(encoding="utf-8")
    blocks = "\n".join(re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    joined = re.sub(r" *\\\n +", " ", blocks)
    return [line.strip() for line in joined.splitlines() if "vllm serve " in line]


@pytest.fixture
def serve(run: RunFolder, base: Path, exported: Path, tmp_path: Path) -> Any:
    """Give a function that starts a line of a page, waits until it answers, and ends it with the test."""
    started: list[Server] = []

    def start(file: str, part: str) -> Server:
        (line,) = [line for line in lines_of(file) if part in line]
        names = {"BASE": base, "RUN": run.path, "runs/my": run.path, "OUT": exported}
        for name, path in names.items():
            line = re.sub(rf"(?<![\w/.]){name}(?![\w.])", str(path), line)
        server = start_line(tmp_path, f"{line} {SMALLER}")
        started.append(server)
        wait(server)
        return server

    yield start
    for server in started:
        stop(server)


def names_at(server: Server) -> set[str]:
    """Return the names that a server lists."""
    return {model["id"] for model in httpx.get(f"{server.url}/v1/models", timeout=60).json()["data"]}


def answer(server: Server, renderer: Renderer) -> httpx.Response:
    """Ask the aligned system by its name."""
    reply = server.ask(model="presafe", prompt=renderer.render("red stone", "on").ids, max_tokens=4, temperature=0)
    assert reply.status_code == 200, reply.text
    return reply


def test_the_readme_has_the_line_of_the_guide() -> None:
    (readme,) = lines_of("README.md")
    assert readme.replace("vllm serve MODEL ", "vllm serve BASE ") in lines_of("docs/guides/vllm.md")


def test_an_adapter_is_served_by_name(serve: Any, base: Path, renderer: Renderer) -> None:
    server = serve("docs/guides/vllm.md", "vllm serve BASE ")
    assert names_at(server) == {str(base), "presafe"}
    assert "x-presafe-action" not in answer(server, renderer).headers


def test_merged_weights_are_served(serve: Any, renderer: Renderer) -> None:
    server = serve("docs/guides/vllm.md", "vllm serve OUT/merged")
    assert names_at(server) == {"presafe"}
    answer(server, renderer)


def test_a_gated_adapter_is_served(serve: Any, run: RunFolder, renderer: Renderer) -> None:
    server = serve("docs/guides/gate.md", "--middleware")
    reply = answer(server, renderer)
    gate = read_json(run.path / "alignment" / "presafe" / "gate.json")
    p = float(reply.headers["x-presafe-refuse-probability"])
    assert reply.headers["x-presafe-action"] == ("refused" if p >= gate["threshold"] else "answered")


def test_the_classifier_is_served(serve: Any, run: RunFolder, renderer: Renderer) -> None:
    server = serve("docs/guides/serve.md", "OUT/classifier")
    gate = read_json(run.path / "alignment" / "presafe" / "gate.json")
    ids = renderer.render("red stone 0", "on").ids  # the first query of the calibration
    reply = server.ask("/classify", model="classifier", input=ids)
    assert reply.status_code == 200, reply.text
    assert reply.json()["data"][0]["probs"] == pytest.approx([gate["reference"]["p"][0]], abs=1e-3)


def test_the_environment_is_the_one_of_the_guide() -> None:
    assert (ENVIRONMENT / "bin" / "vllm").exists()
