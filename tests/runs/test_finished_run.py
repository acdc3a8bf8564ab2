"""A finished run whose files were damaged or removed: it says so, and does again what is missing."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from presafe.config.recipe import load_recipe
from presafe.errors import RunError
from presafe.stages.report import need_report, report_data
from presafe.stages.run_folder import RunFolder
from presafe.workflows.run import run_stages


@pytest.fixture(scope="module")
def whole(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the recipe to its report, once."""
    return run_stages(load_recipe(recipe), tmp_path_factory.mktemp("one") / "run").path


@pytest.fixture
def run(whole: Path, recipe: Path, tmp_path: Path) -> RunFolder:
    """Return a copy of the finished run."""
    return RunFolder(shutil.copytree(whole, tmp_path / "run"), load_recipe(recipe))


def test_a_damaged_report_is_written_again(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    # Failed first: the run said that all was done before, and the damage stayed.
    page, results = (run.path / "report" / name for name in ("report.html", "results.json"))
    rows = json.loads(results.read_text(encoding="utf-8"))["rows"]
    need_report(run)
    for text in ("null\n", "{}", '{"rows": []}', json.dumps({"rows": rows[:-1]})):
        results.write_text(text, encoding="utf-8")
        with pytest.raises(RunError, match=r"results\.json"):
            need_report(run)
    page.unlink()
    run_stages(run.recipe, run.path)
    printed = capsys.readouterr().err
    assert "report.html is missing. The report is written again." in printed
    assert printed.count("done before") == 4
    assert page.is_file()
    assert json.loads(results.read_text(encoding="utf-8"))["rows"] == rows


def test_missing_scores_or_marks_stop_the_report(run: RunFolder) -> None:
    # Failed first: the report was written without them.
    scores = run.path / "evaluation" / "scores.jsonl"
    text = scores.read_text(encoding="utf-8")
    first = text.split("\n")[0] + "\n"
    for damaged in ("", first, text + first):
        scores.write_text(damaged, encoding="utf-8")
        with pytest.raises(RunError, match="its rows are not those of the run's systems and suites"):
            report_data(run)
    (run.path / "stages" / "align").unlink()
    with pytest.raises(RunError, match="its stage align is not done"):
        report_data(run)


def test_a_damaged_log_of_a_finished_run_is_sampled_again(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    # Failed first: its folder could not be used again. That samples come back is tested with the sampler.
    log = next((run.path / "evaluation" / "vanilla-on").glob("*.eval"))
    half = log.read_bytes()[: log.stat().st_size // 2]
    log.write_bytes(half)
    worked: list[str] = []
    monkeypatch.setattr("presafe.workflows.run._work_of", lambda stage: lambda run: worked.append(stage))
    run_stages(run.recipe, run.path)
    assert worked == ["evaluate", "report"]
    assert not log.exists()
    assert log.with_name(f"{log.name}.damaged").read_bytes() == half
