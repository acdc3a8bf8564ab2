"""Free memory of a machine, and of a container with a limit."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from presafe.runtime import memory


@pytest.mark.parametrize(
    ("files", "free"),
    [
        ({"max": "5000000000", "current": "3000000000", "stat": "anon 2000000000\ninactive_file 500000000"}, 2.5e9),
        ({"max": "1000", "current": "3000", "stat": "inactive_file 0"}, 0),
        ({"max": "max", "current": "3000000000", "stat": "inactive_file 0"}, 9e9),
        ({}, 9e9),
    ],
)
def test_free_memory_respects_the_limit_of_a_container(
    files: dict[str, str], free: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / f"memory.{name}").write_text(text + "\n")
    monkeypatch.setattr(memory, "_CONTAINER", tmp_path)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=9_000_000_000))
    assert memory.free_bytes() == free
