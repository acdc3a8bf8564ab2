"""The plug-in for vLLM has the files of this room, and needs nothing else of this package."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import presafe.gating

ROOM = Path(presafe.gating.__file__).parent
PLUGIN = ROOM.parents[2] / "plugins" / "vllm" / "src" / "presafe_vllm"
NEEDED = {"prometheus_client", "pydantic"}
"""What vLLM's environment has."""


def test_the_plug_ins_folder_is_this_one() -> None:
    assert (PLUGIN / "gating").resolve() == ROOM.resolve()


def test_no_file_needs_more_than_the_plug_in_has() -> None:
    imported, siblings = set(), set()
    for file in ROOM.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                imported.add(str(node.module).partition(".")[0])
            elif isinstance(node, ast.ImportFrom):
                siblings.add((node.level, str(node.module)))
    assert imported - sys.stdlib_module_names == NEEDED
    assert all(level == 1 and (ROOM / f"{name}.py").is_file() for level, name in siblings)
    assert len(siblings) > 4
