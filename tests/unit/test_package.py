"""The package's front: what importing it loads, and that every public name is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

import presafe

HEAVY = ("torch", "inspect_ai", "transformers", "trl", "peft", "datasets", "matplotlib", "scipy")


@pytest.mark.parametrize("module", ["presafe", "presafe.config.recipe", "presafe.runs.folder", "presafe.prompts.sets"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    code = f"import sys, {module}; print(*sorted({set(HEAVY)!r} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.parametrize("name", presafe.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(presafe, name).__name__ == name
    assert name in dir(presafe)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'presafe' has no attribute 'nothing'"):
        _ = presafe.nothing  # type: ignore[attr-defined]
