"""The built wheel: installed into an environment without the checkout, it holds all that the commands need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest
from tiny_models import make_tokenizer
from tiny_run import write_recipe

from presafe.models.family import families
from presafe.models.rendering import Renderer
from presafe.models.weights import smollm2_folder

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel() -> Path:
    """Return the wheel that `make test` built from this checkout before the tests."""
    wheels = sorted((ROOT / "dist").glob("presafe-*.whl"), key=lambda path: path.stat().st_mtime)
    if not wheels:
        pytest.skip("no wheel in dist/; `make dist` builds it")
    return wheels[-1]


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Install the wheel into an environment that borrows the dependencies of this one, but not its checkout."""
    folder = tmp_path_factory.mktemp("wheel") / "environment"
    venv.create(folder, with_pip=False)
    site = next(folder.glob("lib/python*/site-packages"))
    borrowed = next(path for path in map(Path, sys.path) if path.name == "site-packages")
    install = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--no-compile",
        "--target",
        str(site),
        str(wheel),
    ]
    subprocess.run(install, check=True, timeout=120)
    (site / "borrowed.pth").write_text(f"{borrowed}\n")  # links to checkouts that lie there are not followed
    return folder


def run(environment: Path, folder: Path, *words: str) -> str:
    """Run Python of the environment in a folder with an empty home beside it, and return what it prints."""
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    # The weights of the base model are no part of the wheel, and are not fetched again.
    variables = kept | {"HOME": str(home), "XDG_CACHE_HOME": str(home), "PRESAFE_SMOLLM2": str(smollm2_folder())}
    command = [str(environment / "bin" / "python"), *words]
    done = subprocess.run(command, cwd=folder, env=variables, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_wheel_holds_every_file_of_the_package(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "src/presafe"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.splitlines()
    expected = {Path(name).relative_to("src").as_posix() for name in listed if (ROOT / name).exists()}
    if not expected:
        pytest.skip("no git checkout")
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("presafe/")}
    assert expected - held == set()
    assert held - expected == set()


def test_commands_run_from_the_wheel_in_an_empty_folder(environment: Path, tmp_path: Path) -> None:
    folder = tmp_path / "empty"
    folder.mkdir()
    place = run(environment, folder, "-c", "import presafe; print(presafe.__file__)").strip()
    assert Path(place).is_relative_to(environment)
    assert "smolthink-135m" in run(environment, folder, "-m", "presafe", "list", "recipes")
    # shipped prompts, suites, judges and SmolThink's adapter
    words = ["probe", "smolthink", "--limit", "1", "--max-tokens", "8", "--thinking", "off", "--out", "probe"]
    printed = run(environment, folder, "-m", "presafe", *words)
    assert "report: probe/report.html" in printed
    results = json.loads((folder / "probe" / "results.json").read_text(encoding="utf-8"))
    assert {row["n"] for row in results["rows"] if row["metric"] == "refusal_rate"} == {1}


def test_the_wheel_aligns_a_tiny_model_in_an_empty_folder(environment: Path, tmp_path: Path) -> None:
    inputs, folder = tmp_path / "inputs", tmp_path / "empty"
    inputs.mkdir()
    folder.mkdir()
    tokenizer = make_tokenizer()
    recipe = write_recipe(inputs, tokenizer, Renderer(tokenizer, families()["smolthink"]))
    printed = run(environment, folder, "-m", "presafe", "run", str(recipe), "--out", "run")
    assert "report: run/report/report.html" in printed
    rows = json.loads((folder / "run" / "report" / "results.json").read_text(encoding="utf-8"))["rows"]
    assert {(row["system"], row["thinking"]) for row in rows if row["system"] != "classifier"} == {
        ("vanilla", "on"),
        ("vanilla", "off"),
        ("presafe", "on"),
    }
    assert (folder / "run" / "alignment" / "presafe" / "presafe_head.safetensors").is_file()
