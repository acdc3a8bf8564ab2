"""What today's code leaves is what `record.json` holds; `golden.py` says which code wrote it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from fork_server import Forked

from golden import differences, make_record

RECORD = Path(__file__).parent / "record.json"


def run_forked(words: list[str], folder: Path, variables: dict[str, str]) -> tuple[int, str, str]:
    """Run a command in a process whose libraries are already imported."""
    process = Forked(words, folder, variables)
    output, errors = process.communicate(timeout=900)
    return process.wait(), output, errors


def test_nothing_changed_but_what_was_meant_to() -> None:
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))
    assert differences(recorded, make_record(run_forked)) == []


def test_a_changed_number_and_a_lost_file_are_found() -> None:
    old = {"files": {"a.json": {"rate": 0.5, "n": 4}, "b.md": ["one line"]}}
    assert differences(old, old) == []
    changed = {"files": {"a.json": {"rate": 0.51, "n": 4}}}
    assert differences(old, changed) == ["/files/a.json/rate: 0.5 -> 0.51", "/files/b.md: only in the old record"]
