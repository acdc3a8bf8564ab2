"""`make bench` in its quick form: every part runs, both sides do the same work, and the record says so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "benchmarks" / "bench.py"


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    command = [sys.executable, str(BENCH), "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    record: dict[str, Any] = json.loads(done.stdout)
    return record


def test_each_part_has_positive_values_of_both_sides(record: dict[str, Any]) -> None:
    parts = record["parts"]
    # Two of sampling, time and memory of a training, two of the classifier, one of decision scores.
    assert {name: len(parts[name]) for name in ("sampling", "training", "classifier", "decision")} == {
        "sampling": 2,
        "training": 2,
        "classifier": 2,
        "decision": 1,
    }
    for name in ("sampling", "training", "classifier", "decision"):
        for row in parts[name]:
            assert row["others"].keys() == row["values"].keys() - {"PreSafe"} != set()
            assert all(value > 0 for values in row["values"].values() for value in values)
            for other, compared in row["others"].items():
                # One turn: the ratio is that of the two values.
                assert compared["ratio"]["median"] == row["values"]["PreSafe"][0] / row["values"][other][0]


def test_both_sides_of_a_part_give_the_same(record: dict[str, Any]) -> None:
    parts = record["parts"]
    for row in parts["sampling"]:
        assert row["same_answers"]["same"] == row["same_answers"]["of"] > 0
        assert 0 < row["floor"] <= 1  # rows that are never empty need no more passes than batches
    assert "floor" in parts["training"][0]["values"]
    assert parts["classifier"][1]["largest_difference"] < 1e-4
    assert parts["decision"][0]["largest_difference"] < 1e-3


def test_start_growth_and_time_line_are_there(record: dict[str, Any]) -> None:
    parts = record["parts"]
    assert [row["what"] for row in parts["startup"]] == [
        "import presafe",
        "presafe --help",
        "presafe list methods",
        "python -c pass",
    ]
    assert parts["growth"]["prompts"] == [100]
    assert set(parts["growth"]["stages"]) == {"respond", "signal", "align", "evaluate", "report"}
    assert all(stage["seconds"][0] > 0 for stage in parts["growth"]["stages"].values())
    assert parts["timeline"]["total_minutes"] == pytest.approx(sum(parts["timeline"]["seconds"].values()) / 60)
    assert record["manifest"]["commit"]
