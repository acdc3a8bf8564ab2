"""A whole run on models of a few thousand weights, made once: what the kinds damage, kill and resume."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from faults.cases import Fault
from faults.server import import_seen, run_command

RECIPE = """
name = "tiny"
[model]
address = "./student"
[respond]
classifier_queries = [{ file = "red.jsonl", expect = "refuse" }, { file = "blue.jsonl", expect = "comply" }]
alignment_queries = [{ file = "red2.jsonl", expect = "refuse" }, { file = "blue2.jsonl", expect = "comply" }]
teacher_max_tokens = 24
max_tokens = 48
[signal]
encoder = "./encoder"
epochs = 2
batch_size = 4
[align]
systems = ["presafe"]
max_steps = 6
batch_size = 4
learning_rate = 1e-3
[evaluate]
max_tokens = 48
[evaluate.suites]
red = { file = "red3.jsonl", expect = "refuse" }
sums = { file = "sums.jsonl", expect = "answer", target_column = "answer" }
"""
RUN = ("run", "tiny.toml", "--out", "run")
REPORT = ("report", "run")
COMPARE = ("compare", "run", "--out", "compared")
LIMIT_S = 240.0
"""Seconds that a command of a tiny run may take on a busy machine; alone it takes ten."""


def built_run(workspace: Path) -> Path:
    """Return the folder of the run, which is made if it is not there: models, prompts, a recipe, and the finished run.

    Raises:
        RuntimeError: the run or its comparison did not end well.
    """
    folder = workspace / "tiny"
    if folder.exists():
        return folder
    sys.path.append(str(Path(__file__).parents[1] / "golden"))
    from golden import build_inputs

    folder.mkdir(parents=True)
    build_inputs(folder)
    (folder / "tiny.toml").write_text(RECIPE)
    for words in (RUN, COMPARE, REPORT):
        done = run_command(words, folder, folder / f".{words[0]}", LIMIT_S)
        if done.code != 0:
            raise RuntimeError(f"presafe {' '.join(words)} ended with {done.code}: {done.err[-2000:]}")
        import_seen(folder / f".{words[0]}")
    return folder


def results_of(folder: Path) -> Any:
    """Return the rows of a finished run's results, and the paired differences.

    Raises:
        Fault: the files are missing or damaged, though the command that should have left them ended well.
    """
    try:
        rows = json.loads((folder / "run" / "report" / "results.json").read_text(encoding="utf-8"))["rows"]
        lines = (folder / "run" / "evaluation" / "differences.jsonl").read_text(encoding="utf-8").splitlines()
        return {"rows": rows, "differences": [json.loads(line) for line in lines]}
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise Fault("exit 0 without results that can be read", error) from None


def compared_of(folder: Path) -> Any:
    """Return the rows of a comparison."""
    return json.loads((folder / "compared" / "results.json").read_text(encoding="utf-8"))["rows"]
