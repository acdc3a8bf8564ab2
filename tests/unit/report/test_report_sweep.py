"""A sweep as a figure and sentences; the two modes of a model side by side."""

from __future__ import annotations

from presafe.report.sensitivity import panels, sampling_name, sweep_figure, sweep_sentences

from presafe.records import SweepScore
from presafe.report.page import render_report


def cell(temperature: float, value: float, top_k: int = 0) -> SweepScore:
    return SweepScore(
        system="vanilla",
        thinking="on",
        suite="strong_reject",
        metric="attack_success_rate",
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


def test_a_panel_holds_its_cells_greedy_first() -> None:
    (panel,) = panels(SWEEP)
    assert [sampling_name(each) for each in panel.cells] == [
        "greedy",
        "T 0.6, top-p 0.95, top-k all",
        "T 1, top-p 0.95, top-k all",
        "T 1, top-p 0.95, top-k 20",
    ]
    assert panels([]) == []


def test_the_sentence_names_the_lowest_and_the_highest_cell() -> None:
    assert sweep_sentences(SWEEP)[0] == (
        "With its chain of thought on, Vanilla gives in to between 10.0 % [5, 15] (greedy) and 40.0 % [35, 45] "
        "(T 1, top-p 0.95, top-k all) of StrongREJECT prompts, over 4 ways of sampling."
    )
    assert sweep_sentences([]) == ()


def test_the_figure_is_drawn_and_repeats() -> None:
    drawn = sweep_figure(SWEEP)
    assert drawn is not None
    assert drawn.startswith("<?xml")
    assert sweep_figure(SWEEP) == drawn
    assert sweep_figure([]) is None
    assert sweep_figure([cell(0, 0.1)]) is not None


def test_the_page_shows_modes_and_sweeps(data, make_difference) -> None:
    modes = make_difference("presafe", "off", 0.4, 0.9, suite="gsm8k", metric="accuracy")
    page = render_report(data.model_copy(update={"differences": (modes,), "sweep": SWEEP, "scores": ()}))
    assert "What the chain of thought is worth on problems" in page
    assert "How much it depends on how tokens are drawn" in page
    assert "over 4 ways of sampling" in page
    assert "What the chain of thought is worth" not in render_report(data)
