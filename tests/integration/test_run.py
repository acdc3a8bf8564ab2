"""A whole run: the files it writes, and that a kill in any stage changes nothing."""

from __future__ import annotations

import json
import re
import shutil
import signal
from pathlib import Path

import pytest
from command_line import finish, start
from inspect_ai.log import list_eval_logs, read_eval_log
from safetensors.torch import load_file

from presafe.errors import RunError
from presafe.records import Difference, HistoryPoint, Response, Signal
from presafe.runs.io import read_jsonl
from presafe.stages.evaluate import responses_by_suite
from presafe.stages.report import need_report
from presafe.stages.run_folder import RunFolder
from presafe.stages.systems import evaluated_systems

KILL_AT = (
    r"^  teacher: ",
    r"^  own: ",
    r"^  classifier: [3-9]",
    r"^  sft: 2/",
    r"^  presafe: 3/",
    r"^  vanilla-on: ",
    r"^  presafe-on: ",
    r"^5 report",
)
"""The line on stderr after which the process is killed: each stage once or twice."""


def test_results_have_the_rows_of_the_design(whole_run: Path) -> None:
    results = json.loads((whole_run / "report" / "results.json").read_text(encoding="utf-8"))
    assert set(results) == {"schema", "manifest", "timings_s", "rows", "head_fits"}
    assert results["schema"] == 3
    assert list(results["timings_s"]) == ["respond", "signal", "align", "evaluate"]
    fields = {"system", "thinking", "suite", "metric", "value", "low", "high", "n", "seed", "judge", "samples"}
    assert all(set(row) == fields for row in results["rows"])
    measured = {(row["system"], row["thinking"], row["suite"], row["metric"]): row for row in results["rows"]}
    for system, thinking in (("vanilla", "on"), ("vanilla", "off"), ("sft", "on"), ("presafe", "on")):
        assert measured[system, thinking, "smolthink_harmful", "refusal_rate"]["n"] <= 6
        assert measured[system, thinking, "smolthink_benign", "truncated_rate"]["n"] == 4
        assert measured[system, thinking, "arithmetic", "accuracy"]["n"] == 4
    # SmolThink refuses with CoT off (99 of 100; here of six) and mostly does not with CoT on
    off = measured["vanilla", "off", "smolthink_harmful", "refusal_rate"]["value"]
    assert off >= 0.5
    assert off > (measured["vanilla", "on", "smolthink_harmful", "refusal_rate"]["value"] or 0.0)
    assert ("presafe", "on", "smolthink_benign", "head_auroc") in measured
    assert ("sft", "on", "smolthink_benign", "head_auroc") not in measured


def test_a_report_links_the_runs_it_was_compared_with(whole_run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(whole_run, tmp_path / "other & more")
    done = finish("report", str(whole_run), "--compare", str(other))
    assert done.returncode == 0, done.stderr
    folder = whole_run / "report" / "against-other & more"
    names = {
        "run/sft",
        "run/presafe",
        "run/vanilla",
        "other & more/sft",
        "other & more/presafe",
        "other & more/vanilla",
    }
    rows = read_jsonl(folder / "differences.jsonl", Difference)
    assert {row.system for row in rows} | {row.against for row in rows} == names
    link = '<a href="against-other%20%26%20more/report.html">other &amp; more</a>.'
    assert link in (whole_run / "report" / "report.html").read_text(encoding="utf-8")
    assert finish("report", str(whole_run)).returncode == 0  # the link stays
    assert link in (whole_run / "report" / "report.html").read_text(encoding="utf-8")


def test_every_stage_left_its_files(whole_run: Path) -> None:
    for name in (
        "recipe.json",
        "manifest.json",
        "responses/teacher",
        "responses/own",
        "signals/classifier/model.safetensors",
        "signals/signals.jsonl",
        "alignment/sft/adapter/adapter_model.safetensors",
        "alignment/presafe/adapter/adapter_config.json",
        "alignment/presafe/presafe_head.safetensors",
        "evaluation/vanilla-off",
        "report/report.html",
        "report/figures/gap.svg",
    ):
        assert (whole_run / name).exists(), name
    # 14 alignment queries: 6 harmful, 4 benign, 4 arithmetic
    assert len(read_jsonl(whole_run / "signals" / "signals.jsonl", Signal)) == 14
    assert len(read_jsonl(whole_run / "alignment" / "presafe" / "history.jsonl", HistoryPoint)) == 4


def test_a_finished_run_is_not_repeated(whole_run: Path, small_recipe: Path) -> None:
    done = finish("run", str(small_recipe), "--out", str(whole_run))
    assert done.returncode == 0
    assert done.stderr.count("done before") == 5


def test_a_damaged_report_is_written_again(whole_run: Path, small_recipe: Path) -> None:
    # Failed first: the run said that all was done before, and the damage stayed.
    page, results = (whole_run / "report" / name for name in ("report.html", "results.json"))
    rows = json.loads(results.read_text(encoding="utf-8"))["rows"]
    run = RunFolder.existing(whole_run)
    need_report(run)
    for text in ("null\n", "{}", '{"rows": []}', json.dumps({"rows": rows[:-1]})):
        results.write_text(text, encoding="utf-8")
        with pytest.raises(RunError, match=r"results\.json"):
            need_report(run)
    page.unlink()
    done = finish("run", str(small_recipe), "--out", str(whole_run))
    assert done.returncode == 0
    assert "report.html is missing. The report is written again." in " ".join(done.stderr.split())
    assert done.stderr.count("done before") == 4
    assert page.is_file()
    assert json.loads(results.read_text(encoding="utf-8"))["rows"] == rows


def test_other_settings_are_refused_and_named(whole_run: Path, small_recipe: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(
        small_recipe.read_text(encoding="utf-8").replace("max_steps = 4", "max_steps = 5"), encoding="utf-8"
    )
    done = finish("run", str(other), "--out", str(whole_run))
    assert done.returncode == 2
    assert "align.max_steps: 4 → 5" in done.stderr
    assert (whole_run / "report" / "results.json").exists()


@pytest.mark.timeout(900)
def test_kills_in_every_stage_leave_the_same_results(whole_run: Path, small_recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    for pattern in KILL_AT:
        process = start("run", str(small_recipe), "--out", str(out))
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if re.search(pattern, line):
                process.send_signal(signal.SIGKILL)
                break
        else:
            pytest.fail(f"no line like {pattern}: {''.join(lines)[-2000:]}")
        process.wait()
    done = finish("run", str(small_recipe), "--out", str(out))
    assert done.returncode == 0, done.stderr

    assert _responses(out) == _responses(whole_run)
    assert (out / "signals" / "signals.jsonl").read_text() == (whole_run / "signals" / "signals.jsonl").read_text()
    for system in ("sft", "presafe"):
        left = load_file(out / "alignment" / system / "adapter" / "adapter_model.safetensors")
        right = load_file(whole_run / "alignment" / system / "adapter" / "adapter_model.safetensors")
        assert all(left[name].equal(right[name]) for name in right)
    scores = [(folder / "evaluation" / "scores.jsonl").read_text() for folder in (out, whole_run)]
    assert scores[0] == scores[1]


def test_ctrl_c_shows_how_to_resume(small_recipe: Path, tmp_path: Path) -> None:
    process = start("run", str(small_recipe), "--out", str(tmp_path / "run"), "--until", "respond")
    assert process.stderr is not None
    next(line for line in process.stderr if line.startswith("  teacher: "))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "presafe: interrupted; run the same command again to resume." in err
    assert "Traceback" not in err


def test_a_kill_loses_at_most_the_batch_in_flight(small_recipe: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start("run", str(small_recipe), "--out", str(out), "--until", "respond")
    assert process.stderr is not None
    # 16 queries in batches of 4: when the tenth row is done, two batches have been logged
    next(line for line in process.stderr if (m := re.match(r"  teacher: (\d+)/16", line)) and int(m[1]) >= 10)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed_at = max(path.stat().st_mtime for path in out.rglob("*") if path.is_file())
    done = finish("run", str(small_recipe), "--out", str(out), "--until", "respond")
    assert done.returncode == 0, done.stderr
    log = read_eval_log(list_eval_logs(str(out / "responses" / "teacher"))[0])
    assert log.samples is not None
    from datetime import datetime

    kept = [s for s in log.samples if datetime.fromisoformat(str(s.completed_at)).timestamp() <= killed_at + 0.01]
    assert len(log.samples) == 16
    assert len(kept) >= 8


def _responses(folder: Path) -> dict[str, dict[str, list[Response]]]:
    run = RunFolder.existing(folder)
    return {f"{s.name} {s.thinking}": responses_by_suite(run, s) for s in evaluated_systems(run.recipe)}
