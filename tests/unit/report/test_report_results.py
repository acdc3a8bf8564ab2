"""results.json has exactly the keys its readers were promised; the terminal's table says the same."""

from __future__ import annotations

import json

import pytest
from report_cases import make_score
from rich.console import Console

from presafe.records import Score
from presafe.report.data import ReportData
from presafe.report.results import differences_table, results_json, summary_table


def test_results_json_round_trips_with_exact_keys(data: ReportData) -> None:
    results = json.loads(results_json(data))
    assert list(results) == ["schema", "manifest", "timings_s", "rows", "head_fits"]
    assert results["schema"] == 3
    assert results["manifest"] == data.manifest
    assert results["timings_s"] == {"align": 212.5}
    keys = ["system", "thinking", "suite", "metric", "value", "low", "high", "n", "seed", "judge", "samples"]
    assert all(list(row) == keys for row in results["rows"])
    assert tuple(Score.model_validate(row) for row in results["rows"]) == data.scores


def test_results_json_refuses_nan(data: ReportData) -> None:
    # A record refuses it, too; a copy is not checked.
    row = make_score("presafe", "on", "gsm8k", "accuracy", 0.5).model_copy(update={"value": float("nan")})
    with pytest.raises(ValueError, match="JSON"):
        results_json(data.model_copy(update={"scores": (row,)}))


def test_summary_table_has_a_line_per_system_and_mode(data: ReportData) -> None:
    table = summary_table(data)
    columns = [list(column.cells) for column in table.columns]
    assert columns[0] == [
        "Vanilla",
        "Vanilla",
        "SFT only (λ = 0)",
        "PreSafe + L_start (ours)",
        "Random labels (control)",
    ]
    assert columns[1] == ["on", "off", "on", "on", "on"]
    assert [str(column.header).split(":")[0] for column in table.columns[2:]] == [
        "Harmful, held out",
        "Benign, held out",
        "Borderline, held out",
        "Arithmetic",
    ]
    assert columns[2] == [
        "8.3 % [5, 15]",
        "98.3 % [94, 100]",
        "89.0 % [82, 93]",
        "95.0 % [91, 97]",
        "62.0 % [53, 70]",
    ]
    console = Console(width=140)
    with console.capture() as capture:
        console.print(table)
    assert "95.0 % [91, 97]" in capture.get()
    assert columns[5] == ["90.0 % [83, 94]", "–", "–", "89.0 % [81, 94]", "–"]


def test_narrow_terminal_keeps_whole_headings(data: ReportData) -> None:
    rows = [
        make_score("vanilla", "on", suite, "refusal_rate", 0.5, low=0.4, high=0.6)
        for suite in ("strong_reject", "jailbreakbench", "advbench", "harmbench", "xstest_unsafe", "wildjailbreak")
    ]
    console = Console(width=80)
    with console.capture() as capture:
        console.print(summary_table(data.model_copy(update={"scores": tuple(rows)})))
        console.print(differences_table(data))
    assert "…" not in capture.get()  # failed first: "StrongREJ…"


def test_differences_table_says_what_n_could_show(data: ReportData) -> None:
    assert list(differences_table(data).columns[-1].cells) == ["11", "11"]


def test_caption_names_cells_with_many_unjudged(data: ReportData) -> None:
    many = make_score("presafe", "on", "smolthink_benign", "unjudged_rate", 0.38)
    few = make_score("sft", "on", "smolthink_benign", "unjudged_rate", 0.04)
    rest = tuple(score for score in data.scores if score.metric != "unjudged_rate")
    caption = str(summary_table(data.model_copy(update={"scores": (*rest, many, few)})).caption)
    assert "PreSafe + L_start (ours), CoT on, Benign, held out: 38.0 %" in caption
    assert "have no verdict" in caption
    assert "SFT" not in caption
