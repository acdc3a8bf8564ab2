"""A whole run of SmolThink: the files it writes, and what kills of its sampling and training leave.

`tests/runs/test_interrupted_run.py` kills a run of tiny models in every stage.
"""

from __future__ import annotations

import json
import re
import shutil
import signal
import time
from pathlib import Path

from command_line import SMALL, finish, start
from inspect_ai.log import list_eval_logs, read_eval_log
from safetensors.torch import load_file

from presafe.records import Difference, HistoryPoint, Signal
from presafe.runs.io import read_jsonl


def test_results_have_the_rows_of_the_design(whole_run: Path) -> None:
    results = json.loads((whole_run / "report" / "results.json").read_text(encoding="utf-8"))
    assert set(results) == {"schema", "manifest", "timings_s", "rows", "head_fits"}
    assert results["schema"] == 3
    assert list(results["timings_s"]) == ["respond", "signal", "align", "evaluate"]
    fields = {"system", "thinking", "suite", "metric", "value", "low", "high", "n", "seed", "judge", "samples"}
    assert all(set(row) == fields for row in results["rows"])
    measured = {(row["system"], row["thinking"], row["suite"], row["metric"]): row for row in results["rows"]}
    for system, thinking in (("vanilla", "on"), ("vanilla", "off"), ("sft", "on"), ("presafe", "on")):
        assert measured[system, thinking, "smolthink_harmful", "refusal_rate"]["n"] <= 3
        assert measured[system, thinking, "smolthink_benign", "truncated_rate"]["n"] == 2
        assert measured[system, thinking, "arithmetic", "accuracy"]["n"] == 2
    # SmolThink refuses with CoT off (99 of 100; here of three) and mostly does not with CoT on
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
    # 8 alignment queries: 4 harmful, 2 benign, 2 arithmetic
    assert len(read_jsonl(whole_run / "signals" / "signals.jsonl", Signal)) == 8
    assert len(read_jsonl(whole_run / "alignment" / "presafe" / "history.jsonl", HistoryPoint)) == 2


def test_a_finished_run_is_not_repeated(whole_run: Path, small_recipe: Path) -> None:
    done = finish("run", str(small_recipe), "--out", str(whole_run))
    assert done.returncode == 0
    assert done.stderr.count("done before") == 5


def test_other_settings_are_refused_and_named(whole_run: Path, small_recipe: Path) -> None:
    other = small_recipe.with_name("other.toml")
    text = small_recipe.read_text(encoding="utf-8")
    other.write_text(text.replace("max_steps = 2", "max_steps = 3"), encoding="utf-8")
    done = finish("run", str(other), "--out", str(whole_run))
    assert done.returncode == 2
    assert "align.max_steps: 2 → 3" in done.stderr
    assert (whole_run / "report" / "results.json").exists()


def test_a_kill_in_training_leaves_the_same_adapter(whole_run: Path, small_recipe: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(whole_run, tmp_path / "run"))
    for stage in ("align", "evaluate", "report"):
        (out / "stages" / stage).unlink()
    shutil.rmtree(out / "alignment" / "presafe")
    words = ("run", str(small_recipe), "--out", str(out), "--until", "align")
    process = start(*words)
    state = out / "alignment" / "presafe" / "checkpoints" / "checkpoint-1" / "trainer_state.json"
    while not state.exists():  # the second and last step takes seconds
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not (out / "alignment" / "presafe" / "history.jsonl").exists()
    done = finish(*words)
    assert done.returncode == 0, done.stderr
    ours, theirs = (folder / "alignment" / "presafe" for folder in (out, whole_run))
    assert (ours / "history.jsonl").read_text() == (theirs / "history.jsonl").read_text()
    for name in ("adapter/adapter_model.safetensors", "presafe_head.safetensors"):
        left, right = load_file(ours / name), load_file(theirs / name)
        assert left.keys() == right.keys()
        assert all(left[key].equal(right[key]) for key in right), name


def test_ctrl_c_shows_how_to_resume(small_recipe: Path, tmp_path: Path) -> None:
    process = start("run", str(small_recipe), "--out", str(tmp_path / "run"), "--until", "respond")
    assert process.stderr is not None
    next(line for line in process.stderr if line.startswith("  teacher: "))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "presafe: interrupted; run the same command again to resume." in err
    assert "Traceback" not in err


def test_a_kill_loses_at_most_the_batch_in_flight(tmp_path: Path) -> None:
    out, file = tmp_path / "run", tmp_path / "small.toml"
    file.write_text(SMALL.replace("\nmax_tokens = 64", "\nmax_tokens = 2"), encoding="utf-8")
    process = start("run", str(file), "--out", str(out), "--until", "respond")
    assert process.stderr is not None
    # 16 queries in batches of 4: when the tenth row is done, two batches have been logged
    next(line for line in process.stderr if (m := re.match(r"  teacher: (\d+)/16", line)) and int(m[1]) >= 10)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed_at = max(path.stat().st_mtime for path in out.rglob("*") if path.is_file())
    done = finish("run", str(file), "--out", str(out), "--until", "respond")
    assert done.returncode == 0, done.stderr
    log = read_eval_log(list_eval_logs(str(out / "responses" / "teacher"))[0])
    assert log.samples is not None
    from datetime import datetime

    kept = [s for s in log.samples if datetime.fromisoformat(str(s.completed_at)).timestamp() <= killed_at + 0.01]
    assert len(log.samples) == 16
    assert len(kept) >= 8
