"""Small but whole runs on the real SmolThink: real weights, real prompts, every stage."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import SMALL, finish


@pytest.fixture(scope="session")
def small_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "small.toml"
    path.write_text(SMALL, encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def whole_run(small_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the small recipe without interruption, and return its folder."""
    out = tmp_path_factory.mktemp("whole") / "run"
    done = finish("run", str(small_recipe), "--out", str(out))
    assert done.returncode == 0, done.stderr
    return out
