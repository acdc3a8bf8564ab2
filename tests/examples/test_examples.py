"""The examples run as they stand, in a scratch folder, with SmolThink; each in under a minute on two quiet cores."""

from __future__ import annotations

import contextlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from presafe.config.recipe import load_recipe
from presafe.stages.run_folder import RunFolder
from presafe.stages.workload import Workload

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(folder: Path, *words: str) -> str:
    """Run Python with some words, and return what it printed."""
    done = subprocess.run([sys.executable, *words], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_measure_gap(tmp_path: Path) -> None:
    printed = run(tmp_path, str(EXAMPLES / "measure_gap.py"), "--limit", "2", "--max-tokens", "48")
    rates = re.findall(
        r"^(smolthink_\w+) +CoT (on|off) +[\d.]+ % \[\d+, \d+\] refused, n = [12]$", printed, re.MULTILINE
    )
    assert {"smolthink_harmful", "smolthink_benign"} == {suite for suite, _ in rates}
    assert (tmp_path / "runs/example-gap/report.html").exists()


def test_custom_judge(tmp_path: Path) -> None:
    printed = run(tmp_path, str(EXAMPLES / "custom_judge.py"))
    # the shipped judge's accuracy is the one that docs/research/judge.md quotes
    assert re.search(r"^refusal_strings \(shipped\) +accuracy 94\.7 % \[92, 97\]", printed, re.MULTILINE)
    assert re.search(r"^first_sentence \(this file\) +accuracy \d", printed, re.MULTILINE)


def test_trainer_only(tmp_path: Path) -> None:
    run(tmp_path, str(EXAMPLES / "trainer_only.py"))
    assert (tmp_path / "runs/direct/adapter/adapter_model.safetensors").exists()
    assert (tmp_path / "runs/direct/presafe_head.safetensors").exists()


def test_align_own_model(whole_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(EXAMPLES / "align_own_model")
    recipe = load_recipe(Path("recipe.toml"))
    Workload(recipe).check()
    # The run is that of this recipe; there, the file of prompts has its whole path.
    ran = RunFolder.existing(whole_run).recipe
    assert (ran.model, ran.respond, ran.signal, ran.align) == (
        recipe.model,
        recipe.respond,
        recipe.signal,
        recipe.align,
    )
    results = json.loads((whole_run / "report/results.json").read_text(encoding="utf-8"))
    measured = {(row["system"], row["suite"]) for row in results["rows"]}
    assert {("sft", "mine"), ("presafe", "mine"), ("presafe", "smolthink_harmful")} <= measured
    assert (whole_run / "alignment/presafe/adapter/adapter_model.safetensors").exists()


def test_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import matplotlib as mpl

    mpl.use("agg")
    notebook = json.loads((EXAMPLES / "gap_on_smolthink.ipynb").read_text(encoding="utf-8"))
    assert notebook["nbformat"] == 4
    assert [cell for cell in notebook["cells"] if cell.get("outputs")] == []  # committed without outputs
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        for cell in cells:
            exec(compile(cell, "notebook", "exec"), names)
    assert re.search(r"^smolthink_harmful +CoT off \d+% refused, n = 3$", printed.getvalue(), re.MULTILINE)
    axis = names["axis"]
    assert len(axis.patches) == 4  # type: ignore[attr-defined]  # two suites, CoT on and off


def test_every_example_is_listed_and_run() -> None:
    listed = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    tests = Path(__file__).read_text(encoding="utf-8")
    names = {file.name for file in EXAMPLES.iterdir() if file.name != "README.md"}
    assert names == {
        "measure_gap.py",
        "custom_judge.py",
        "trainer_only.py",
        "align_own_model",
        "gap_on_smolthink.ipynb",
    }
    assert all(name in listed and name in tests for name in names)
