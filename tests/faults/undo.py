"""Undo each mend of a reported fault on a copy of the package, and see that its test fails.

The libraries are imported once; each test runs in a fork, which imports the copy.

    PYTHONPATH=tests:tests/support python -m faults.undo                  all of mends.toml, about ten minutes
    PYTHONPATH=tests:tests/support python -m faults.undo --of F1,F2       those of two reports

A test that passes although its mend is undone tests nothing: it is printed as NOT CAUGHT. What came of each mend is
written to undone.json, from which the documentation makes its table.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

MENDS = Path(__file__).parent / "mends.toml"
OUTCOMES = MENDS.with_name("undone.json")
_ROOT = Path(__file__).parents[2]
_LIMIT_S = 300.0
"""Seconds that a test may take on a busy machine; a mend against a hang hangs when it is undone."""


class Mend(NamedTuple):
    """One mend of a reported fault."""

    of: str
    """Number or name of the report."""
    rule: str
    """What holds with the mend."""
    edits: tuple[tuple[str, str, str], ...]
    """What undoes it: a file below src/presafe, a text that stands there once, and what takes its place."""
    test: str
    """The test that fails without the mend, as pytest names it."""


def read_mends() -> list[Mend]:
    """Return the mends in the order of their file."""
    entries = tomllib.loads(MENDS.read_text(encoding="utf-8"))["mend"]
    return [Mend(entry["of"], entry["rule"], tuple(map(tuple, entry["edits"])), entry["test"]) for entry in entries]


def places_missing(mend: Mend) -> list[str]:
    """Return the texts of a mend's edits that do not stand exactly once in their files."""
    package = _ROOT / "src" / "presafe"
    return [
        f"{file}: {text!r}"
        for file, text, _ in mend.edits
        if (package / file).read_text(encoding="utf-8").count(text) != 1
    ]


def import_libraries() -> None:
    """Import what the tests need beside the package, so that each fork starts at once."""
    import hypothesis  # noqa: F401
    import inspect_ai.log  # noqa: F401
    import matplotlib.pyplot  # noqa: F401
    import peft  # noqa: F401
    import torch

    torch.set_num_threads(1)
    import transformers.models.llama.modeling_llama  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401


def try_without(mend: Mend, folder: Path) -> str:
    """Run a mend's test on a copy of the package in which the mend is undone.

    Args:
        mend: The mend.
        folder: An empty folder for the copy.

    Returns:
        The first case of the test that fails, that it does not end, or "NOT CAUGHT".
    """
    package = Path(shutil.copytree(_ROOT / "src" / "presafe", folder / "presafe"))
    for file, text, undone in mend.edits:
        path = package / file
        path.write_text(path.read_text(encoding="utf-8").replace(text, undone), encoding="utf-8")
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        _run_test(mend.test, folder)
    end = time.monotonic() + _LIMIT_S
    code: int | None = None
    while code is None and time.monotonic() < end:
        ended, status = os.waitpid(child, os.WNOHANG)
        code = os.waitstatus_to_exitcode(status) if ended else None
        time.sleep(0.05)
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    if code is None:
        os.waitpid(child, 0)
        return "does not end"
    report = (folder / "out").read_text(encoding="utf-8", errors="replace")
    failed = re.search(r"^(?:FAILED|ERROR) .*?::(\w+)(\[.*\])?(?: - |$)", report, re.MULTILINE)
    if code != 1 or failed is None:
        return f"NOT CAUGHT (exit {code}: {report[-300:]})"
    return f"fails {failed[2]}" if failed[2] else "fails"


def _run_test(test: str, folder: Path) -> None:
    """Run a test in this forked child with the copy of the package in `folder`, and leave."""
    code = 99
    try:
        os.setsid()
        for number in (1, 2):
            os.dup2(os.open(folder / "out", os.O_CREAT | os.O_WRONLY | os.O_APPEND), number)
        os.chdir(_ROOT)
        sys.path[:] = [str(folder), *(part for part in sys.path if Path(part).resolve() != _ROOT / "src")]
        os.environ["PYTHONPATH"] = os.pathsep.join(part for part in sys.path if part)
        import pytest

        code = int(pytest.main(["-x", "-rfE", "-p", "no:cacheprovider", "--tb=no", "-W", "ignore", test]))
        sys.stdout.flush()
    finally:
        os._exit(code)


def main(words: list[str]) -> int:
    """Undo the mends one by one; returns 1 if one of their tests does not fail."""
    parser = argparse.ArgumentParser(prog="python -m faults.undo")
    parser.add_argument("--of", default="", help="numbers or names of reports, with commas between; else all")
    chosen = set(filter(None, parser.parse_args(words).of.split(",")))
    num_missed = 0
    import_libraries()
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=_ROOT, capture_output=True, text=True, check=True)
    for mend in read_mends():
        if chosen and mend.of not in chosen:
            continue
        with tempfile.TemporaryDirectory(prefix="undone-") as folder:
            missing = places_missing(mend)
            outcome = f"NOT CAUGHT (no such place: {missing[0]})" if missing else try_without(mend, Path(folder))
        num_missed += outcome.startswith("NOT CAUGHT")
        record = json.loads(OUTCOMES.read_text(encoding="utf-8")) if OUTCOMES.exists() else {}
        of_whole = record.get("commit") if chosen else commit.stdout.strip()  # of the last time all were tried
        tried = {"commit": of_whole, "outcomes": record.get("outcomes", {}) | {mend.rule: outcome}}
        OUTCOMES.write_text(json.dumps(tried, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        print(f"{mend.of}: {mend.rule}\n    {mend.test.rpartition('/')[2]}: {outcome}", flush=True)
    print(f"{num_missed} not caught")
    return int(num_missed > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
