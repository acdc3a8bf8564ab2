"""Small but whole runs on the real SmolThink: real weights, real prompts, every stage."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from command_line import SMALL, finish
from filelock import FileLock


@pytest.fixture(scope="session")
def small_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "small.toml"
    path.write_text(SMALL, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def whole_run(small_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the small recipe without interruption, once for all workers, and return this worker's copy of its folder."""
    folder = tmp_path_factory.mktemp("whole")
    shared = (folder.parents[1] if "PYTEST_XDIST_WORKER" in os.environ else folder) / "whole_run"
    with FileLock(shared.with_suffix(".lock")):
        if not (shared / "stages" / "report").exists():
            done = finish("run", str(small_recipe), "--out", str(shared))
            assert done.returncode == 0, done.stderr
    return Path(shutil.copytree(shared, folder / "run"))
