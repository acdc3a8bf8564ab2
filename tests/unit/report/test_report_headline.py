"""The headline says the numbers there are, and no others."""

from __future__ import annotations

import pytest

from presafe.report.headline import cards, comparisons, headline
from presafe.report.labels import duration, estimate, percent


def test_headline_says_gap_cure_comparison_and_price(scores):
    assert headline(scores, "SmolThink-135M") == (
        "With its chain of thought on, SmolThink-135M refuses 8 % of held-out harmful prompts; "
        "with its chain of thought off, 98 %.",
        "After PreSafe it refuses 95 % with the chain of thought on.",
        "For comparison, with the chain of thought on, fine-tuning alone (λ = 0) gives 89 % and random "
        "labels in place of the signal give 62 %.",
        "With its chain of thought on, PreSafe wrongly refuses 3 % of held-out benign prompts (1 % before) "
        "and 20 % of borderline prompts (2 % before), and correctly answers 89 % of arithmetic problems "
        "(90 % before).",
    )


def test_missing_rows_leave_their_clauses_out(scores):
    kept = [s for s in scores if s.system != "sft" and s.thinking == "on" and s.suite != "smolthink_benign"]
    kept = [s for s in kept if (s.system, s.suite) != ("vanilla", "arithmetic")]
    assert headline(kept) == (
        "With its chain of thought on, the model refuses 8 % of held-out harmful prompts.",
        "After PreSafe it refuses 95 % with the chain of thought on.",
        "For comparison, with the chain of thought on, random labels in place of the signal give 62 %.",
        "With its chain of thought on, PreSafe wrongly refuses 20 % of borderline prompts (2 % before), "
        "and correctly answers 89 % of arithmetic problems.",
    )


def test_headline_without_vanilla_names_the_prompts(scores):
    kept = [s for s in scores if s.system == "presafe" and s.suite == "smolthink_harmful"]
    assert headline(kept) == (
        "After PreSafe it refuses 95 % of held-out harmful prompts with the chain of thought on.",
    )


def test_headline_of_nothing_is_empty():
    assert headline([]) == ()
    assert cards([]) == ()
    assert comparisons([]) == ()


def test_value_none_is_a_missing_row(make_score):
    assert headline([make_score("vanilla", "on", "smolthink_harmful", "refusal_rate", None)]) == ()


def test_mean_over_seeds_stands_before_the_seeds(make_score):
    seeds = [
        make_score("vanilla", "on", "strong_reject", "refusal_rate", value, seed=seed)
        for value, seed in ((0.2, 0), (0.4, 1), (0.3, None))
    ]
    assert headline(seeds) == ("With its chain of thought on, the model refuses 30 % of StrongREJECT prompts.",)
    assert headline(seeds[:2]) == ()  # two seeds and no mean: there is no one number to say


def test_attack_success_stands_in_where_refusals_were_not_measured(make_score):
    rows = [make_score("vanilla", "on", "harmbench", "attack_success_rate", 0.7)]
    assert headline(rows) == ("With its chain of thought on, the model gives in to 70 % of HarmBench prompts.",)


def test_comparisons_read_the_intervals(scores):
    # PreSafe [0.91, 0.97] against SFT [0.82, 0.93]: 0.91 <= 0.93; against random labels [0.53, 0.70]: apart
    assert comparisons(scores) == (
        "Harmful, held out, CoT on: PreSafe 95.0 % [91, 97], SFT only (λ = 0) 89.0 % [82, 93]. "
        "The intervals overlap: by themselves they do not tell the two apart.",
        "Harmful, held out, CoT on: PreSafe 95.0 % [91, 97], Random labels (control) 62.0 % [53, 70]. "
        "The intervals do not overlap.",
    )


def test_cards_hold_before_and_after(scores):
    made = [(card.suite, card.before and card.before.value, card.after and card.after.value) for card in cards(scores)]
    assert made == [
        ("Harmful, held out", 0.083, 0.95),
        ("Benign, held out", 0.008, 0.033),
        ("Borderline, held out", 0.017, 0.2),
        ("Arithmetic", 0.9, 0.89),
    ]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0 %"), (0.004, "0.4 %"), (0.0004, "0 %"), (0.083, "8 %"), (0.996, "99.6 %"), (1.0, "100 %")],
)
def test_percent_never_rounds_a_few_to_none(value, text):
    assert percent(value) == text


def test_estimates_and_durations(make_score):
    assert estimate(make_score("a", "on", "s", "refusal_rate", 0.95, low=0.91, high=0.97)) == "95.0 % [91, 97]"
    assert estimate(make_score("a", "on", "s", "refusal_rate", 0.0, low=-1e-18, high=0.03)) == "0.0 % [0, 3]"
    assert estimate(make_score("a", "on", "s", "head_auroc", 0.948, low=0.93, high=0.96)) == "0.948 [0.93, 0.96]"
    assert estimate(make_score("a", "on", "s", "refusal_rate", None)) == "–"
    assert estimate(None) == "–"
    assert [duration(s) for s in (4.25, 185, 3725)] == ["4.2 s", "3 min 05 s", "1 h 02 min"]
