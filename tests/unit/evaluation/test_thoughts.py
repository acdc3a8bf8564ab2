"""Success by the length of the thought: bins and rates by hand, and the figure."""

from __future__ import annotations

import csv
from pathlib import Path

from presafe.evaluation.answers import Answers
from presafe.evaluation.thoughts import bin_start, thought_bins
from presafe.records import Response, ThoughtBin, Verdict
from presafe.report.data import ReportData
from presafe.report.page import write_report
from presafe.report.thoughts import bin_name, thoughts_figure


def response(name: str, words: int, verdict: Verdict, sample: int = 1) -> Response:
    return Response(
        prompt_id=name,
        thinking="on",
        thought=" ".join(["so"] * words),
        answer="A wren.",
        truncated=False,
        complete=True,
        num_tokens=9,
        verdict=verdict,
        sample=sample,
    )


def test_bins_of_thoughts_double() -> None:
    starts = {words: bin_start(words) for words in (0, 1, 15, 16, 31, 32, 63, 64, 1000)}
    assert starts == {0: 0, 1: 1, 15: 1, 16: 16, 31: 16, 32: 32, 63: 32, 64: 64, 1000: 512}
    assert [bin_name(start) for start in (0, 1, 16, 512)] == ["0", "1–15", "16–31", "512–1023"]


def test_success_is_a_rate_over_the_judged_answers_of_a_bin() -> None:
    answers = [
        response("a", 0, "refuse"),
        response("b", 3, "refuse"),
        response("c", 15, "comply"),
        response("d", 40, "comply"),
        response("e", 50, "unjudged"),  # in no bin
        response("f", 33, "unsafe"),
    ]
    suites = {"mine@h_cot": Answers("refuse", answers, "j"), "benign": Answers("comply", answers, "j")}
    bins = thought_bins(suites, "vanilla")
    assert [(row.suite, row.words, row.value, row.n) for row in bins] == [
        ("mine@h_cot", 0, 0.0, 1),
        ("mine@h_cot", 1, 0.5, 2),
        ("mine@h_cot", 32, 1.0, 2),
    ]
    # Wilson's interval of 1 of 2.
    assert bins[1].low is not None
    assert abs(bins[1].low - 0.0945) < 1e-3
    # Two answers to one prompt in one bin are one prompt.
    (row,) = thought_bins(
        {"x@y": Answers("refuse", [response("a", 2, "comply"), response("a", 3, "refuse", 2)], "j")}, "v"
    )
    assert (row.value, row.n) == (0.5, 1)


def test_the_figure_is_drawn_where_attacks_were_measured(tmp_path: Path) -> None:
    def row(suite: str, system: str, words: int, value: float) -> ThoughtBin:
        return ThoughtBin(system=system, suite=suite, words=words, value=value, low=0.0, high=1.0, n=3)

    plain = [row("mine", "vanilla", 0, 0.5)]
    assert thoughts_figure(plain) is None
    bins = (*plain, row("mine@h_cot", "vanilla", 16, 0.25), row("mine@h_cot", "sft", 16, 0.75))
    drawn = thoughts_figure(bins)
    assert drawn is not None
    assert "words of the thought" in drawn
    assert "16–31" in drawn
    data = ReportData(title="t", recipe={}, manifest={}, timings_s={}, thoughts=bins)
    assert "thoughts" not in ReportData(title="t", recipe={}, manifest={}, timings_s={}).model_dump(
        exclude_defaults=True
    )
    write_report(data, tmp_path)
    assert (tmp_path / "figures" / "thoughts.svg").read_text(encoding="utf-8") == drawn
    with (tmp_path / "data" / "thoughts.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(line["suite"], line["system"], line["words"], line["value"]) for line in rows] == [
        ("mine", "vanilla", "0", "0.5"),
        ("mine@h_cot", "vanilla", "16", "0.25"),
        ("mine@h_cot", "sft", "16", "0.75"),
    ]
