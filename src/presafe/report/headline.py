"""Sentences and cards that are filled from the numbers: the two modes, PreSafe, comparisons, harmless prompts.

A missing row leaves its clause out. The wording does not depend on the numbers: it reports, and never claims that a
method worked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from presafe.methods.registry import methods
from presafe.report.formatting import (
    DASH,
    METRICS,
    SUITES,
    SYSTEMS,
    VERBS,
    describe_prompts,
    display_name,
    format_estimate,
    format_p,
    format_percent,
    format_points,
    format_rate,
    format_size,
    in_known_order,
)
from presafe.report.lookup import (
    MODES,
    count_answers,
    find_score,
    leading_metric,
    metrics_of,
    suites_in,
    systems_in,
)

if TYPE_CHECKING:
    from presafe.records import Difference, HeadFit, Score, Thinking

_BEFORE, _AFTER, _ADAPTED = "vanilla", "presafe", "adapted"

_MOST_UNJUDGED = 0.05
"""If a larger share of answers has no verdict, a sentence also gives the range that they leave open. Ours."""
_OVER_ALL = "over all"


class Card(NamedTuple):
    """One number before and after PreSafe, with CoT on; `n` is "45 of 100 → 58 of 100" if some were unjudged."""

    suite: str
    metric: str
    before: Score | None
    after: Score | None
    n: str


def headline(scores: Sequence[Score], model: str = "the model") -> tuple[str, ...]:
    """Describe the run in a few sentences: the two modes, PreSafe, the two comparisons, harmless prompts.

    Args:
        scores: The rows; a sentence or clause is left out if its row is missing.
        model: Name of the model in the sentences.

    Returns:
        The sentences, at least one unless there are no scores.
    """
    if not scores:
        return ()
    system, name = _BEFORE, model
    if _ADAPTED in systems_in(scores):
        system, name = _ADAPTED, f"{model} with the adapter"
    sentences = [
        _modes_sentence(scores, system, name),
        _presafe_sentence(scores),
        _controls_sentence(scores),
        *_operating_sentences(scores),
    ]
    prices = [
        price for mode in MODES if (price := _harmless_sentence(scores, _AFTER, mode, display_name(_AFTER, SYSTEMS)))
    ]
    sentences += prices or [_harmless_sentence(scores, system, mode, name) for mode in MODES]
    present = [sentence for sentence in sentences if sentence]
    if any(_OVER_ALL in sentence for sentence in present):
        present.append("“Over all” counts the answers without a verdict once as not refused and once as refused.")
    return tuple(present) or ("There is no single rate to name: the tables below hold what was measured.",)


def headline_cards(scores: Sequence[Score]) -> tuple[Card, ...]:
    """Return the numbers of the headline that PreSafe has, before and after; those at the operating point first."""
    cards = []
    for suite, metric in _operating_columns(scores):
        before, after = (find_score(scores, system, "on", suite, metric) for system in (_BEFORE, _AFTER))
        if after:
            n = f"{format_size(before) if before else DASH} → {format_size(after)}"
            cards.append(Card(display_name(suite, SUITES), display_name(metric, METRICS), before, after, n))
    for suite in _headline_suites(scores):
        before, after = (_leading_score(scores, system, "on", suite) for system in (_BEFORE, _AFTER))
        if after:
            n = f"{_count_judged(scores, before)} → {_count_judged(scores, after)}"
            cards.append(Card(display_name(suite, SUITES), display_name(after.metric, METRICS), before, after, n))
    return tuple(cards)


def lambda_start_note(align: Mapping[str, object], scores: Sequence[Score]) -> tuple[str, ...]:
    """Say where a method's name promises L_start and the recipe's `lambda_start` is 0.

    Args:
        align: The recipe's settings of the alignment; empty if nothing was trained.
        scores: The rows of the run.
    """
    if align.get("lambda_start") != 0:
        return ()
    names = [
        display_name(name, SYSTEMS)
        for name in systems_in(scores)
        if name in methods() and (training := methods()[name].training)
        if training.start and training.head and training.lambda_start is None
    ]
    return (f"`lambda_start` is 0 in this run, so there is no L_start in: {', '.join(names)}.",) if names else ()


def key_differences(differences: Sequence[Difference]) -> tuple[str, ...]:
    """Compare PreSafe with each other system on the first harmful suite, then with CoT off on benign prompts."""
    harmful_metrics = ("refusal_rate", "attack_success_rate")
    harmful = in_known_order((row.suite for row in differences if row.metric in harmful_metrics), SUITES)[:1]
    sentences = [
        _difference_sentence(row)
        for row in differences
        if row.suite in harmful and row.system in (_BEFORE, _AFTER, _ADAPTED)
    ]
    sentences += [
        f"{_difference_sentence(row)} This project's own bar is at most 5 points more."
        for row in differences
        if row.metric == "over_refusal_rate" and "benign" in row.suite
        if (row.thinking, row.against, row.against_thinking) == ("on", _BEFORE, "off")
    ]
    return tuple(sentences)


def all_differences(differences: Sequence[Difference]) -> tuple[str, ...]:
    """Describe every difference, each with what its n could have shown."""
    return tuple(_difference_sentence(difference, with_power=True) for difference in differences)


def comparison_headline(differences: Sequence[Difference]) -> str:
    """Say how many differences there are, how many have a small p, and what one training cannot show."""
    num_small = sum(difference.p_holm < 0.05 for difference in differences)
    sentence = (
        f"Paired differences on the same prompts: {len(differences)}, of which {num_small} with a corrected p below "
        "0.05."
    )
    if all(difference.num_seeds == 1 for difference in differences):
        sentence += " p is over prompts: of a system that was trained once, it says nothing about another training."
    return sentence


def _difference_sentence(difference: Difference, *, with_power: bool = False) -> str:
    """Describe a difference: "Harmful, held out: PreSafe (CoT on) refuses 95.0 %, Vanilla (CoT on) 8.3 %, …".

    Args:
        difference: The difference.
        with_power: Always add what n could have shown; otherwise only if p is not small.
    """
    p = format_p(difference.p_holm) if difference.p_holm < 0.001 else f"= {format_p(difference.p_holm)}"
    left_out = ""
    if difference.num_left_out:
        left_out = f"; {difference.num_left_out} without a judged answer of both are left out"
    sentence = (
        f"{display_name(difference.suite, SUITES)}: "
        f"{display_name(difference.system, SYSTEMS)} (CoT {difference.thinking}) {VERBS[difference.metric]} "
        f"{100 * difference.value:.1f} %, "
        f"{display_name(difference.against, SYSTEMS)} (CoT {difference.against_thinking}) "
        f"{100 * difference.value_against:.1f} %, a paired difference of {format_points(difference.difference)} points "
        f"[{format_points(difference.low)}, {format_points(difference.high)}] on {difference.n} prompts "
        f"(corrected p {p}{left_out})."
    )
    if difference.detectable is not None and (with_power or difference.p_holm >= 0.05):
        sentence += (
            f" One test at 5 % would have found a true difference of {100 * difference.detectable:.0f} points four "
            "times in five."
        )
    elif with_power:
        sentence += " One test at 5 % would have found no true difference, however large, four times in five."
    return sentence


def head_sentences(head_fits: Mapping[str, HeadFit]) -> tuple[str, ...]:
    """Say for each system how well its head learned p′; a head that did not fit carries no verdict."""
    sentences = []
    for name, fit in head_fits.items():
        system = display_name(name, SYSTEMS)
        measured = f"L_align {fit.loss:.2f} over the last quarter of the steps, floor {fit.floor:.2f} nats"
        turned = f"cosine with its start {fit.cosine:.2f}"
        if fit.explained is None:
            sentences.append(f"The head of {system} had nothing to fit: p′ hardly varies ({measured}).")
        elif fit.is_fitted:
            sentences.append(
                f"The head of {system} fitted: it explains {100 * fit.explained:.0f} % of what p′ varies "
                f"({measured}; {turned})."
            )
        else:
            sentences.append(
                f"The head of {system} did not fit: it explains {100 * fit.explained:.0f} % of what p′ varies, less "
                f"than half ({measured}; {turned}). This run carries no verdict on what the head is worth."
            )
    return tuple(sentences)


def auroc_sentences(scores: Sequence[Score]) -> tuple[str, ...]:
    """Give the AUROCs of the decision position, one sentence per suite, and what a value below 0.5 means."""
    sentences: list[str] = []
    values: list[float] = []
    for suite in suites_in(scores):
        clauses = []
        for metric, source in (("refusal_start_auroc", "the model's own leaning"), ("head_auroc", "the head")):
            rows = [row for name in systems_in(scores) if (row := find_score(scores, name, "on", suite, metric))]
            if rows:
                estimates = ", ".join(f"{display_name(row.system, SYSTEMS)} {format_estimate(row)}" for row in rows)
                clauses.append(f"AUROC of {source}: {estimates}")
            values += [row.value for row in rows if row.value is not None]
        if clauses:
            sentences.append(f"Harmful prompts against {describe_prompts(suite)}, {'; '.join(clauses)}.")
    if any(value < 0.5 for value in values):
        sentences.append("Below 0.5 means that harmful prompts lean less to refusal than harmless ones.")
    return tuple(sentences)


def _headline_suites(scores: Sequence[Score]) -> list[str]:
    """Return one suite to refuse, two to comply with and one to answer, which is what a headline has room for."""
    return suites_in(scores, "refuse")[:1] + suites_in(scores, "comply")[:2] + suites_in(scores, "answer")[:1]


def _leading_score(scores: Sequence[Score], system: str, thinking: Thinking, suite: str) -> Score | None:
    """Return the suite's leading rate."""
    return find_score(scores, system, thinking, suite, leading_metric(scores, suite))


def _count_judged(scores: Sequence[Score], score: Score | None) -> str:
    """Return "100", or "45 of 100" if some were unjudged; unjudged problems count as wrong, so all are counted."""
    if score is None:
        return DASH
    count = count_answers(scores, score.system, score.thinking, score.suite)
    if not count.unjudged or score.metric == "accuracy":
        return format_size(score)
    return f"{count.judged} of {count.total}"


def _rate_clause(scores: Sequence[Score], score: Score, *, name_prompts: bool) -> str:
    """Return a rate with its counts: "7 % of harmful prompts (3 of the 45 judged; 55 of 100 had no verdict: …)".

    The counts are answers. If many have no verdict, the range "3 % to 58 % over all" counts all of them on one side
    and then on the other: (hits, hits + unjudged) / all.

    Args:
        scores: All rows.
        score: The rate, with a value.
        name_prompts: Whether to name the prompts.
    """
    assert score.value is not None
    rate = format_rate(score)
    if name_prompts:
        rate += f" of {describe_prompts(score.suite)}"
    if score.metric == "accuracy":
        num_answers = score.n * score.samples
        return f"{rate} ({round(score.value * num_answers)} of {num_answers})"
    count = count_answers(scores, score.system, score.thinking, score.suite)
    hits = round(score.value * count.judged)
    note = f"{hits} of the {count.judged} judged"
    if count.unjudged > _MOST_UNJUDGED * count.total:
        low, high = format_percent(hits / count.total), format_percent((hits + count.unjudged) / count.total)
        note += f"; {count.unjudged} of {count.total} had no verdict: {low} to {high} {_OVER_ALL}"
    return f"{rate} ({note})"


def _harmful_verb(scores: Sequence[Score], suite: str) -> str:
    """Return the verb of a harmful suite's leading rate: refusals or, without them, attacks that succeed."""
    return VERBS["refusal_rate" if leading_metric(scores, suite) == "refusal_rate" else "attack_success_rate"]


def _modes_sentence(scores: Sequence[Score], system: str, name: str) -> str | None:
    """Describe what one system does with harmful prompts, with CoT on and off."""
    for suite in suites_in(scores, "refuse")[:1]:
        clauses: list[str] = []
        for mode in MODES:
            score = _leading_score(scores, system, mode, suite)
            if score and clauses:
                rate = _rate_clause(scores, score, name_prompts=False)
                clauses.append(f"with its chain of thought {mode}, {rate}")
            elif score:
                rate = _rate_clause(scores, score, name_prompts=True)
                verb = _harmful_verb(scores, suite)
                clauses.append(f"With its chain of thought {mode}, {name} {verb} {rate}")
        if clauses:
            return f"{'; '.join(clauses)}."
    return None


def _presafe_sentence(scores: Sequence[Score]) -> str | None:
    """Describe what PreSafe does with harmful prompts."""
    for suite in suites_in(scores, "refuse")[:1]:
        name_prompts = not any(_leading_score(scores, _BEFORE, mode, suite) for mode in MODES)
        clauses = [
            f"{_rate_clause(scores, score, name_prompts=name_prompts)} with the chain of thought {mode}"
            for mode in MODES
            if (score := _leading_score(scores, _AFTER, mode, suite))
        ]
        if clauses:
            return f"After {display_name(_AFTER, SYSTEMS)} it {_harmful_verb(scores, suite)} {' and '.join(clauses)}."
    return None


def _controls_sentence(scores: Sequence[Score]) -> str | None:
    """Describe what the other aligned systems do with harmful prompts."""
    names = {"sft": "fine-tuning alone (λ = 0) gives", "random_labels": "random labels in place of the signal give"}
    for suite in suites_in(scores, "refuse")[:1]:
        clauses = [
            f"{gives} {_rate_clause(scores, score, name_prompts=False)}"
            for system, gives in names.items()
            if (score := _leading_score(scores, system, "on", suite))
        ]
        if clauses:
            return f"For comparison, with the chain of thought on, {' and '.join(clauses)}."
    return None


def _operating_columns(scores: Sequence[Score]) -> list[tuple[str, str]]:
    """Return the rates of the first harmless suite that has a harmful half: refused, and wrongly refused."""
    suites = [suite for suite in suites_in(scores, "comply") if "cross_refusal_rate" in metrics_of(scores, suite)]
    return [(suite, metric) for suite in suites[:1] for metric in ("cross_refusal_rate", "cross_over_refusal_rate")]


def _operating_sentences(scores: Sequence[Score]) -> list[str]:
    """Describe each system at the cross-fitted threshold of its odds of a refusal, in one sentence."""
    columns = _operating_columns(scores)
    clauses = []
    for system in systems_in(scores):
        rates = [find_score(scores, system, "on", *column) for column in columns]
        if rates and all(rate and rate.value is not None for rate in rates):
            right, wrong = (format_estimate(rate) for rate in rates)
            name = display_name(system, SYSTEMS)
            clauses.append(f"{name} refuses {right} of the harmful and {wrong} of the harmless")
    if not clauses:
        return []
    return [
        f"By the odds of a refusal's first token on {describe_prompts(columns[0][0])} and their harmful half, each "
        "half of the prompts decided at the threshold that wrongly refuses a tenth of the other half: "
        f"{'; '.join(clauses)}."
    ]


def _harmless_sentence(scores: Sequence[Score], system: str, thinking: Thinking, name: str) -> str | None:
    """Describe what one system does with harmless prompts; for PreSafe, beside what the vanilla model does."""

    def rate_clauses(suites: Sequence[str]) -> list[str]:
        rates = [score for suite in suites if (score := _leading_score(scores, system, thinking, suite))]
        if system == _AFTER:
            return [_rate_with_before(scores, score) for score in rates]
        return [_rate_clause(scores, score, name_prompts=True) for score in rates]

    refused = rate_clauses(suites_in(scores, "comply")[:2])
    solved = rate_clauses(suites_in(scores, "answer")[:1])
    clauses = [f"{VERBS['over_refusal_rate']} {' and '.join(refused)}"] if refused else []
    clauses += [f"{VERBS['accuracy']} {rate}" for rate in solved]
    return f"With its chain of thought {thinking}, {name} {', and '.join(clauses)}." if clauses else None


def _rate_with_before(scores: Sequence[Score], after: Score) -> str:
    """Return "3 % of benign prompts (1 % before, 4 % before with the chain of thought off)"; off, only of refusals."""
    same_mode, off = (_leading_score(scores, _BEFORE, mode, after.suite) for mode in (after.thinking, "off"))
    notes = [f"{format_rate(same_mode)} before"] if same_mode else []
    if off and after.thinking == "on" and after.metric == "over_refusal_rate":
        notes.append(f"{format_rate(off)} before with the chain of thought off")
    rate = f"{format_rate(after)} of {describe_prompts(after.suite)}"
    return f"{rate} ({', '.join(notes)})" if notes else rate
