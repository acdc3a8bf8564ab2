"""Habits of the shell: `python -m presafe`, JSON from every verb with a table, completion, -v and -q, exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

import presafe
from presafe.cli.main import app
from presafe.cli.output import print_report
from presafe.cli.report import open_page
from presafe.errors import RunError
from presafe.report.data import ReportData


def presafe_module(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m presafe`."""
    command = [sys.executable, "-m", "presafe", *words]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ | variables)


def test_the_module_is_the_command() -> None:
    done = presafe_module("--version")
    assert (done.returncode, done.stdout) == (0, f"presafe {presafe.__version__}\n")
    done = presafe_module("run", "none.toml")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("presafe: cannot read recipe none.toml")
    assert "Usage: presafe " in presafe_module("--help").stdout


def test_the_shell_completes_verbs() -> None:
    done = presafe_module(_PRESAFE_COMPLETE="complete_bash", COMP_WORDS="presafe export", COMP_CWORD="1")
    assert done.stdout.split() == ["export", "export-data"]
    assert "--install-completion" in presafe_module("--help").stdout


def test_verbose_shows_where_an_error_comes_from() -> None:
    done = presafe_module("-v", "run", "none.toml")
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("presafe: cannot read recipe none.toml")
    done = presafe_module("-v", "-q", "list", "suites")
    assert (done.returncode, done.stderr) == (2, "presafe: -v and -q are opposites. Give one of them.\n")


def test_quiet_prints_no_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    from presafe.runtime.progress import console

    monkeypatch.setattr(console, "quiet", False)
    done = CliRunner().invoke(app, ["-q", "list", "recipes"], catch_exceptions=False)
    assert console.quiet
    assert "smolthink-135m" in done.stdout  # results are printed all the same


GROUP: Any = typer.main.get_command(app)


@pytest.mark.parametrize("verb", sorted(set(GROUP.commands) - {"score", "export", "export-data", "serve"}))
def test_every_verb_with_a_table_prints_json(verb: str) -> None:
    assert "--json" in [name for option in GROUP.commands[verb].params for name in option.opts]


@pytest.mark.parametrize("words", [("list", "methods"), ("study", "own.toml", "--list"), ("doctor",)])
def test_json_is_one_document(words: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    conditions = "".join(f'[[condition]]\nname = "{name}"\nsystem = "{name}"\n' for name in ("sft", "presafe"))
    (tmp_path / "own.toml").write_text(
        f'name = "own"\nrecipe = "smolthink-135m"\nbaseline = "sft"\nseeds = [0]\n{conditions}', encoding="utf-8"
    )
    done = CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False)
    value = json.loads(done.stdout)
    if words[0] == "list":
        assert "presafe" in [entry["name"] for entry in value]
    elif words[0] == "study":
        assert {run["run"]: run["is_done"] for run in value} == {"sft-seed0": False, "presafe-seed0": False}
    else:
        assert value["presafe"] == metadata.version("presafe")


def test_a_report_is_opened_in_the_browser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "run one" / "report" / "report.html"
    opened: list[str] = []

    def browser(address: str) -> bool:
        opened.append(address)
        return len(opened) == 1

    monkeypatch.setattr("webbrowser.open", browser)
    open_page(page)
    assert opened == [page.as_uri()]
    with pytest.raises(RunError, match="found no browser"):
        open_page(page)


def test_a_report_as_json_has_the_rows_of_results_json(capsys: pytest.CaptureFixture[str]) -> None:
    score = {
        "system": "vanilla",
        "thinking": "on",
        "suite": "s",
        "metric": "refusal_rate",
        "value": 0.5,
        "low": None,
        "high": None,
        "n": 2,
        "seed": None,
        "judge": "refusal_strings",
        "samples": 1,
    }
    data = ReportData.model_validate({"title": "t", "recipe": {}, "manifest": {}, "timings_s": {}, "scores": [score]})
    print_report(data, Path("runs/x/report.html"), as_json=True)
    printed = json.loads(capsys.readouterr().out)
    assert printed == {"title": "t", "rows": [score], "differences": [], "report": "runs/x/report.html"}


def test_an_export_of_data_overwrites_nothing(tmp_path: Path) -> None:
    # Failed first: a user's dataset_info.json was replaced.
    mine = tmp_path / "dataset_info.json"
    mine.write_text("{}", encoding="utf-8")
    result = CliRunner().invoke(app, ["export-data", "run", "--format", "llamafactory", "--out", str(tmp_path)])
    assert isinstance(result.exception, RunError)
    assert "is not empty, and an export overwrites nothing" in result.exception.problem
    assert mine.read_text(encoding="utf-8") == "{}"
