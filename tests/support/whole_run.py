"""The run of `examples/align_own_model`: the real SmolThink through every stage, once for all files and workers."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from fork_server import Forked

EXAMPLE = Path(__file__).parents[2] / "examples" / "align_own_model"


@pytest.fixture(scope="session")
def small_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the example's recipe in a folder that all workers share; it names its prompts' file by the whole path."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "align_own_model"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            folder.mkdir()
            text = (EXAMPLE / "recipe.toml").read_text(encoding="utf-8")
            named = text.replace('file = "my_prompts.csv"', f'file = "{EXAMPLE / "my_prompts.csv"}"')
            assert named != text
            (folder / "recipe.toml").write_text(named, encoding="utf-8")
    return folder / "recipe.toml"


@pytest.fixture(scope="session")
def whole_run(small_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the example without interruption, and return this worker's copy of its run folder."""
    folder = small_recipe.parent
    run = folder / "runs" / "mine"
    with FileLock(f"{folder}.run.lock"):
        if not (run / "stages" / "report").exists():
            process = Forked(["run", "recipe.toml", "--out", "runs/mine"], folder, {})
            _, errors = process.communicate(timeout=900)
            assert process.returncode == 0, errors[-3000:]
    return Path(shutil.copytree(run, tmp_path_factory.mktemp("whole") / "run"))
