"""Starting is fast: no torch for help, names or settings."""

from __future__ import annotations

import os
import subprocess
import sys

import presafe


def test_help_in_half_a_second() -> None:
    # CPU time, best of five: the bar is on the program, not on the tests that run beside this one
    seconds = []
    for _ in range(5):
        before = os.times()
        done = subprocess.run([sys.executable, "-m", "presafe.cli.main", "--help"], capture_output=True, check=True)
        after = os.times()
        seconds.append(after.children_user - before.children_user + after.children_system - before.children_system)
        assert b"demo" in done.stdout
    assert min(seconds) < 0.5


def test_the_version() -> None:
    done = subprocess.run([sys.executable, "-m", "presafe.cli.main", "--version"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"presafe {presafe.__version__}\n")


def test_import_loads_no_torch() -> None:
    heavy = "{'torch', 'inspect_ai', 'transformers', 'pydantic'}"
    code = f"import presafe, presafe.cli.main, sys; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_bug_shows_its_traceback_despite_other_hooks() -> None:
    """Inspect sets one that prints some of its errors to its own display, which is off."""
    code = "import sys; from presafe.cli import main; sys.excepthook = print; main.app = lambda: 1 / 0; main.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
