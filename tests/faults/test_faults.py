"""The short form of the harness: planted faults are caught, the corpus and new inputs hold."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TESTS = Path(__file__).parents[1]
KINDS = ("declarations", "prompts", "replies", "folders", "models", "servers", "corruptions", "kills")


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run the short form once, in a process of its own: a fork server has no threads."""
    out = tmp_path_factory.mktemp("faults")
    paths = [TESTS, TESTS / "support", TESTS.parent / "src", *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-m", "faults", "--short", "--out", str(out)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths))},
        capture_output=True,
        text=True,
        check=False,
    )
    print(done.stdout)
    assert (out / "report.json").exists(), done.stdout + done.stderr
    return json.loads((out / "report.json").read_text(encoding="utf-8"))


def test_planted_faults_are_caught(report: Any) -> None:
    assert len(report["planted"]) == 18  # seven misbehaviors, and eleven faults planted in the product
    assert [plant for plant, signature in report["planted"].items() if not signature] == []


@pytest.mark.parametrize("kind", KINDS)
def test_inputs_are_read_rightly_or_refused(report: Any, kind: str) -> None:
    tally = report["kinds"][kind]
    assert tally["tried"] > 0
    assert tally["failures"] == {}, f"seed {report['seed']:#010x}"
    assert tally["failed"] == 0
