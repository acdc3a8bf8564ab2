"""The audit file is capped, and a full disk costs lines, not answers."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from presafe_vllm.gating.audit import Audit
from presafe_vllm.gating.gate_file import GateError


def test_lines_are_rotated_and_capped(tmp_path: Path) -> None:
    lost: list[int] = []
    audit = Audit(tmp_path / "audit.jsonl", lambda: lost.append(1), max_bytes=200)
    for number in range(100):
        audit.write(request=f"x-{number}", p=[0.5])
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["audit.jsonl", *(f"audit.jsonl.{number}" for number in range(1, 5))]
    assert all(file.stat().st_size <= 200 for file in files)
    assert json.loads((tmp_path / "audit.jsonl").read_text().splitlines()[-1]) == {"request": "x-99", "p": [0.5]}
    assert not lost


def test_a_full_disk_is_counted_and_told_once(caplog: pytest.LogCaptureFixture) -> None:
    lost: list[int] = []
    audit = Audit(Path("/dev/full"), lambda: lost.append(1))
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            audit.write(request="x-0")
    assert len(lost) == 3
    assert [record.getMessage() for record in caplog.records] == [
        "the audit /dev/full cannot be written; requests are still answered"
    ]


def test_a_file_that_cannot_be_opened_stops_the_start(tmp_path: Path) -> None:
    with pytest.raises(GateError, match="cannot write the audit"):
        Audit(tmp_path / "none" / "audit.jsonl", lambda: None)
