"""A served model does what a local one does: against `transformers serve`, and through the stages of a run."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from command_line import SMALL
from fake_server import Reply, completion, serving
from typer.testing import CliRunner

from presafe.cli.main import app
from presafe.config.recipe import parse_recipe
from presafe.errors import ModelError
from presafe.models.loading import shared_model
from presafe.models.sampling import logged_suites
from presafe.workflows.run import run_stages


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """SmolThink behind `transformers serve` on a port of its own."""
    for package in ("fastapi", "uvicorn", "openai"):
        pytest.importorskip(package, reason="the extra `serving` is not installed")
    folder = tmp_path_factory.mktemp("served")
    model, renderer = shared_model("smolthink", None, None, "float32")  # the local probe takes it from there
    model.save_pretrained(folder / "smolthink")
    renderer.tokenizer.save_pretrained(folder / "smolthink")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = Path(sys.executable).with_name("transformers")
    server = subprocess.Popen(
        [command, "serve", "smolthink", "--device", "cpu", "--host", "127.0.0.1", "--port", str(port)],
        cwd=folder,  # so that it serves the folder by this name
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"HF_HOME": str(folder / "hub")},
    )
    try:
        for _ in range(600):
            try:
                httpx.get(f"http://127.0.0.1:{port}/health")
                break
            except httpx.TransportError:
                assert server.poll() is None, "transformers serve ended"
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}#smolthink"
    finally:
        server.kill()
        server.wait()


def cli(*words: str) -> str:
    """Return the command line in this process: it imports nothing anew."""
    done = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert done.exit_code == 0
    return done.stdout


def test_served_and_local_models_measure_the_same(address: str, tmp_path: Path) -> None:
    rows = {}
    for name, model in (("served", address), ("local", "smolthink")):
        options = ("--suite", "smolthink_harmful", "--limit", "3", "--max-tokens", "12")
        cli("probe", model, *options, "--out", str(tmp_path / name))
        rows[name] = json.loads((tmp_path / name / "results.json").read_text(encoding="utf-8"))["rows"]
    assert rows["served"] == rows["local"]
    for mode in ("on", "off"):
        logs = [logged_suites(tmp_path / name / "evaluation" / f"vanilla-{mode}", mode) for name in rows]
        served, local = (suites["smolthink_harmful"].responses for suites in logs)
        assert len(served) == 3
        # A turn that ends with the last token of its budget counts as cut in this server: `complete` may differ. It
        # sends text, and no token ids.
        other = {"complete": True, "token_ids": None}
        assert {i: r.model_copy(update=other) for i, (r,) in served.items()} == {
            i: r.model_copy(update=other) for i, (r,) in local.items()
        }
        assert all(r.token_ids is None for (r,) in served.values())
        assert all(len(r.token_ids or ()) == r.num_tokens for (r,) in local.values())
        assert all(response.num_tokens > 5 for (response,) in served.values())


def test_doctor_shows_how_the_server_takes_prompts(address: str) -> None:
    diagnosis = json.loads(cli("doctor", address, "--json"))
    assert (diagnosis["family"], diagnosis["server"]) == ("smolthink", "text, transformers' settings")
    assert diagnosis["on"]["text"].endswith("<think>\n")


def test_a_wrong_name_shows_the_served_name(address: str) -> None:
    other = address.replace("#smolthink", "#smallthink")
    with pytest.raises(ModelError, match=r"does not serve 'smallthink': .*pinned to 'smolthink'"):
        cli("doctor", other, "--tokenizer", "smolthink")


def recipe_of(address: str) -> dict[str, Any]:
    settings = tomllib.loads(SMALL)
    settings["model"]["address"] = address
    settings["align"]["systems"] = []
    settings["signal"]["epochs"] = 1
    return settings


def test_a_run_without_training_works_with_a_served_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def answer(body: dict[str, Any], _: int) -> Reply:
        # It refuses about half of what it is asked with CoT off; the classifier needs both kinds.
        odd = sum(body["prompt"]) % 2
        text = "I can't help with that." if odd else "Here you are: 42."
        off = body["prompt"][-1] != fake.asked[0]["prompt"][-1]  # the greeting comes with CoT on
        return completion(text if off else f"so\n</think>\n\n{text}")

    with serving(answer) as fake:
        recipe = recipe_of(fake.address)
        run = run_stages(parse_recipe(recipe, "served"), tmp_path / "run")
        assert run.is_done("report")
        recipe["align"]["systems"] = ["presafe"]
        with pytest.raises(ModelError, match=r'training an adapter needs local weights.*`until = "signal"`'):
            run_stages(parse_recipe(recipe, "served"), tmp_path / "other")
    results = json.loads((run.path / "report" / "results.json").read_text(encoding="utf-8"))
    metrics = {(row["system"], row["thinking"], row["metric"]) for row in results["rows"]}
    assert ("vanilla", "on", "refusal_rate") in metrics
    assert ("vanilla", "off", "refusal_rate") in metrics
    assert not any("auroc" in metric for _, _, metric in metrics)
    assert "a server does not show its decision position" in capsys.readouterr().err
