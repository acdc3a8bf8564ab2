"""The page of a study: every condition and metric in its cell, and a dash where a number is missing."""

from __future__ import annotations

import json
from pathlib import Path

from presafe.records import Difference
from presafe.study.page import study_markdown, write_study
from presafe.study.records import (
    EndpointResult,
    MetricDifference,
    StudyOperatingPoint,
    StudyScore,
    StudySummary,
    TrainingCost,
)
from presafe.study.spec import Endpoint


def mean(
    system: str, metric: str, value: float | None, *, suite: str = "smolthink_harmful", seeds: int = 3
) -> StudyScore:
    low, high = (None, None) if value is None else (value - 0.05, value + 0.05)
    return StudyScore(
        system=system,
        thinking="on",
        suite=suite,
        metric=metric,
        value=value,
        low=low,
        high=high,
        n=40,
        seed=None,
        judge="refusal_strings",
        num_seeds=seeds,
        over="seeds and prompts",
    )


SUMMARY = StudySummary(
    name="Mine",
    recipe="smolthink-135m",
    baseline="sft",
    conditions=("sft", "strong", "late"),
    done=("sft-seed0", "strong-seed0"),
    missing=("late-seed0",),
    scores=(
        mean("vanilla", "refusal_rate", 0.1, seeds=0),
        mean("strong", "refusal_rate", 0.9),
        mean("strong", "words_before_refusal", 12.5),
        mean("strong", "over_refusal_rate", None, suite="smolthink_benign"),
        mean("sft", "refusal_rate", 0.8),
    ),
    differences=(
        Difference(
            system="strong",
            thinking="on",
            against="sft",
            against_thinking="on",
            suite="smolthink_harmful",
            metric="refusal_rate",
            value=0.9,
            value_against=0.8,
            difference=0.1,
            low=-0.02,
            high=0.22,
            p=0.01,
            p_holm=0.04,
            n=40,
            num_left_out=0,
            num_seeds=3,
            detectable=0.2,
        ),
    ),
    metric_differences=(
        MetricDifference(
            condition="strong",
            thinking="on",
            suite="smolthink_harmful",
            metric="words_before_refusal",
            difference=2.5,
            low=-1.0,
            high=6.0,
            p=None,
            num_seeds=3,
            over="seeds",
        ),
    ),
    costs=(TrainingCost(condition="strong", num_seeds=3, training_s=95.0, trained_tokens=12345.4),),
)


def test_conditions_stand_in_the_order_of_the_study() -> None:
    lines = study_markdown(SUMMARY).splitlines()
    assert "2 of 3 runs are done; missing: late-seed0." in lines[2]
    start = lines.index("## Conditions")
    table = [line for line in lines[start : lines.index("## Every number")] if line.startswith("|")][:5]
    assert table == [
        "| condition | CoT | seeds | Harmful, held out: refused | Benign, held out: wrongly refused | training "
        "| tokens trained |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| vanilla | on | – | 10.0 % [5, 15], n = 40 | – | – | – |",
        "| sft | on | 3 | 80.0 % [75, 85], n = 40 | – | – | – |",
        "| strong | on | 3 | 90.0 % [85, 95], n = 40 | – | 1 min 35 s | 12,345 |",
    ]


def test_halves_worded_alike_have_a_table() -> None:
    heading = "## Harmful against harmless prompts that are worded alike"
    assert heading not in study_markdown(SUMMARY)
    rows = [
        mean("sft", "youden_j", 0.25, suite="xstest_safe"),
        mean("strong", "youden_j", -0.02, suite="xstest_safe"),
        mean("strong", "matched_refusal_start_auroc", 0.75, suite="xstest_safe"),
    ]
    page = study_markdown(SUMMARY.model_copy(update={"scores": (*SUMMARY.scores, *rows)}))
    lines = page[page.index(heading) :].splitlines()
    assert [line for line in lines if line.startswith("|")][2:4] == [
        "| sft | on | 3 | – | 0.250 [0.20, 0.30], n = 40 |",
        "| strong | on | 3 | 0.750 [0.70, 0.80], n = 40 | -0.020 [-0.07, 0.03], n = 40 |",
    ]


def test_cells_with_few_judged_answers_are_marked() -> None:
    few = [
        mean("strong", "accuracy", 0.5, suite="arithmetic").model_copy(update={"n": 36}),
        mean("sft", "accuracy", 0.5, suite="arithmetic").model_copy(update={"n": 35}),
        mean("vanilla", "accuracy", 0.5, suite="arithmetic", seeds=0),
    ]
    page = study_markdown(SUMMARY.model_copy(update={"scores": (*SUMMARY.scores, *few)}))
    assert page.count("50.0 % [45, 55], n = 35 † |") == 2  # among the leading rates, and among all
    assert "n = 36 |" in page
    assert "n = 40 |" in page
    assert page.count("†") == 3  # and where it is explained


def test_operating_points_stand_by_seed() -> None:
    points = [
        StudyOperatingPoint(condition="sft", seed=seed, scale=scale, refused_as_trained=before, refused=refused, n=230)
        for seed, scale, before, refused in ((0, 0.94, 29, 24), (2, 1.0, 0, 0))
    ]
    page = study_markdown(SUMMARY.model_copy(update={"operating_points": tuple(points)}))
    assert "| sft | 0 / 2 | 0.94 / 1.00 | 24 / 0 | 29 / 0 | 230 |" in page
    assert "How strongly" not in study_markdown(SUMMARY)


def test_unknown_metric_is_a_plain_number() -> None:
    page = study_markdown(SUMMARY)
    assert "| strong | on | 3 | 90.0 % [85, 95], n = 40 | 12.500 [12.45, 12.55], n = 40 |" in page
    assert "| Harmful, held out: words before refusal | strong | on | +2.500 [-1.000, +6.000] | seeds | 3 |" in page


def test_paired_line_has_interval_and_corrected_p() -> None:
    assert (
        "| Harmful, held out: refused | strong | on | 90.0 % | 80.0 % | +10.0 [-2.0, +22.0] | 0.040 | 40 | 3 |"
    ) in study_markdown(SUMMARY)


def test_interval_over_seeds_alone_is_marked() -> None:
    scores = [score.model_copy(update={"over": "seeds"}) for score in SUMMARY.scores if score.system == "strong"]
    page = study_markdown(SUMMARY.model_copy(update={"scores": tuple(scores)}))
    assert "| strong | on | 3 | 90.0 % [85, 95] ‡, n = 40 |" in page


def test_endpoints_stand_first_with_their_verdict() -> None:
    assert "No endpoint was declared before the runs." in study_markdown(SUMMARY)
    early = study_markdown(SUMMARY.model_copy(update={"declares_endpoints": True}))
    assert "No endpoint was declared" not in early  # failed first: it was said until the first line was there
    assert "Endpoints were declared before the runs. No run" in early
    result = EndpointResult(
        endpoint=Endpoint(suite="xstest_safe", metric="youden_j", bound=0.05),
        condition="strong",
        difference=0.2,
        low=0.08,
        high=0.32,
        p_holm=0.012,
        num_seeds=3,
        over="seeds and prompts",
        verdict="shown",
    )
    page = study_markdown(SUMMARY.model_copy(update={"endpoints": (result,)}))
    assert (
        "| XSTest safe: against its harmful half: Youden's J | strong | on | +0.200 [+0.080, +0.320] "
        "| higher by more than 0.05 | 0.012 | 3 | shown |"
    ) in page
    assert page.index("## Endpoints") < page.index("## Conditions")


def test_study_without_runs_has_no_table(tmp_path: Path) -> None:
    empty = SUMMARY.model_copy(
        update={"scores": (), "differences": (), "metric_differences": (), "costs": (), "done": ()}
    )
    write_study(empty, tmp_path)
    assert "|" not in (tmp_path / "study.md").read_text(encoding="utf-8")
    assert not (tmp_path / "figures").exists()


def test_folder_holds_page_figure_and_json(tmp_path: Path) -> None:
    write_study(SUMMARY, tmp_path)
    assert "](figures/conditions.svg)" in (tmp_path / "study.md").read_text(encoding="utf-8")
    assert (tmp_path / "figures" / "conditions.svg").read_text(encoding="utf-8").startswith("<?xml")
    results = json.loads((tmp_path / "study.json").read_text(encoding="utf-8"))
    assert results["schema"] == 3
    assert [score["num_seeds"] for score in results["scores"]] == [0, 3, 3, 3, 3]
