"""A sweep as a figure and sentences; the two modes of a model side by side."""

from __future__ import annotations

from report_cases import make_difference, page_of

from presafe.records import SweepScore
from presafe.report.data import ReportData
from presafe.report.sweep import panels, sampling_name, sweep_figure, sweep_sentences


def cell(temperature: float, value: float, top_k: int = 0) -> SweepScore:
    return SweepScore(
        system="vanilla",
        thinking="on",
        suite="strong_reject",
        metric="not_refused_rate",
        value=value,
        low=value - 0.05,
        high=value + 0.05,
        n=60,
        seed=None,
        judge="refusal_strings",
        temperature=temperature,
        top_p=0.95 if temperature else 1.0,
        top_k=top_k,
    )


SWEEP = (cell(1.0, 0.4), cell(0, 0.1), cell(1.0, 0.3, top_k=20), cell(0.6, 0.2))


def test_panel_holds_its_cells_greedy_first() -> None:
    (panel,) = panels(SWEEP)
    assert [sampling_name(shown) for shown in panel.cells] == [
        "greedy",
        "T 0.6, top-p 0.95, top-k all",
        "T 1, top-p 0.95, top-k all",
        "T 1, top-p 0.95, top-k 20",
    ]
    assert panels([]) == []


def test_sentence_names_the_lowest_and_highest_cell() -> None:
    assert sweep_sentences(SWEEP)[0] == (
        "With its chain of thought on, Vanilla does not refuse between 10.0 % [5, 15] (greedy) and 40.0 % [35, 45] "
        "(T 1, top-p 0.95, top-k all) of StrongREJECT prompts, over 4 ways of sampling."
    )
    assert sweep_sentences([]) == ()


def test_figure_repeats_and_needs_cells() -> None:
    drawn = sweep_figure(SWEEP)
    assert drawn is not None
    assert drawn.startswith("<?xml")
    assert sweep_figure(SWEEP) == drawn
    assert sweep_figure([]) is None
    assert sweep_figure([cell(0, 0.1)]) is not None


def test_page_shows_modes_and_sweeps(data: ReportData) -> None:
    modes = make_difference("presafe", "off", 0.4, 0.9, suite="gsm8k", metric="accuracy")
    page = page_of(data.model_copy(update={"differences": (modes,), "sweep": SWEEP, "scores": ()}))
    assert "What the chain of thought is worth on problems" in page
    assert "How much it depends on how tokens are drawn" in page
    assert "over 4 ways of sampling" in page
    assert "What the chain of thought is worth" not in page_of(data)
