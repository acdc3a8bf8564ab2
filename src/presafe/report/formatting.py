"""Names and number formats for people. A name without an entry is shown as it is, without underscores."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from presafe.attacks.registry import attacks, defenses
from presafe.methods.registry import methods

if TYPE_CHECKING:
    from presafe.records import Difference, Score

DASH = "–"
"""Shown in place of a missing number."""

SYSTEMS: Mapping[str, str] = {
    "vanilla": "Vanilla",
    **{name: method.title for name, method in methods().items()},
    "adapted": "Adapted",
}

SUITES: Mapping[str, str] = {
    "smolthink_harmful": "Harmful, held out",
    "strong_reject": "StrongREJECT",
    "strong_reject_small": "StrongREJECT small",
    "jailbreakbench": "JailbreakBench",
    "harmbench": "HarmBench",
    "harmbench_test": "HarmBench test",
    "harmbench_val": "HarmBench validation",
    "harmbench_contextual": "HarmBench contextual",
    "advbench": "AdvBench",
    "wildjailbreak": "WildJailbreak",
    "xstest_unsafe": "XSTest unsafe",
    "smolthink_benign": "Benign, held out",
    "smolthink_borderline": "Borderline, held out",
    "jailbreakbench_benign": "JailbreakBench benign",
    "xstest_safe": "XSTest safe",
    "wildjailbreak_benign": "WildJailbreak benign",
    "or_bench_hard": "OR-Bench hard",
    "phtest": "PHTest",
    "false_reject": "FalseReject",
    "arithmetic": "Arithmetic",
    "aime24": "AIME 2024",
    "aime25": "AIME 2025",
    "math500": "MATH-500",
    "gsm8k": "GSM8K",
    "gpqa_diamond": "GPQA-Diamond",
    "humaneval": "HumanEval",
}

_NOUNS = {
    "smolthink_harmful": "held-out harmful prompts",
    "smolthink_benign": "held-out benign prompts",
    "smolthink_borderline": "borderline prompts",
    "arithmetic": "arithmetic problems",
}

METRICS: Mapping[str, str] = {
    "refusal_rate": "refused",
    "over_refusal_rate": "wrongly refused",
    "accuracy": "answered correctly",
    "not_refused_rate": "not refused",
    "attack_success_rate": "attack success",
    "silent_success_rate": "attack success with a silent decision",
    "strong_reject_score": "StrongREJECT score",
    "thought_refusal_rate": "refused in the thought",
    "thought_not_refused_rate": "not refused in the thought",
    "thought_attack_success_rate": "attack success in the thought",
    "thought_unjudged_rate": "thought without a verdict",
    "like_teacher_rate": "like the teacher, where it differs from the label",
    "whole_safe_rate": "thought and answer both safe",
    "full_compliance_rate": "full compliance",
    "partial_refusal_rate": "partial refusal",
    "full_refusal_rate": "full refusal",
    "refusal_start_auroc": "harmful against this suite: AUROC, refusal start",
    "head_auroc": "harmful against this suite: AUROC, head",
    "matched_refusal_start_auroc": "against its harmful half: AUROC, refusal start",
    "matched_head_auroc": "against its harmful half: AUROC, head",
    "matched_tpr_at_fpr_10": "harmful half refused at 10 % wrong refusals here, by the odds of a refusal's start",
    "matched_tpr_at_fpr_1": "harmful half refused at 1 % wrong refusals here, by the odds of a refusal's start",
    "matched_tpr_at_fpr_01": "harmful half refused at 0.1 % wrong refusals here, by the odds of a refusal's start",
    "matched_head_tpr_at_fpr_1": "harmful half flagged at 1 % false alarms here, by the head",
    "matched_head_tpr_at_fpr_01": "harmful half flagged at 0.1 % false alarms here, by the head",
    "cross_refusal_rate": "harmful half refused, threshold cross-fitted to 10 % wrong refusals",
    "cross_over_refusal_rate": "wrongly refused, threshold cross-fitted to 10 %",
    "cross_youden_j": "against its harmful half: Youden's J, threshold cross-fitted to 10 % wrong refusals",
    "matched_refusal_start_ece": "calibration error of the odds of a refusal's start, with the harmful half",
    "matched_head_ece": "calibration error of the head, with the harmful half",
    "youden_j": "against its harmful half: Youden's J",
    "classifier_accuracy": "classifier accuracy",
    "with_thought_rate": "answered after a thought",
    "truncated_rate": "truncated thought",
    "unjudged_rate": "no verdict",
    "judges_agree_rate": "judges agree",
    "queries_per_answer": "queries for an answer",
    "tokens_per_answer": "tokens read and written for an answer",
}

EXPECTS: Mapping[str, str] = {
    "refuse": "to refuse",
    "comply": "to comply with",
    "answer": "to answer",
    "choice": "to answer by a letter",
    "code": "to answer with a program",
}
"""What a careful assistant does with a prompt, after the word "prompts"."""

VERBS: Mapping[str, str] = {
    "refusal_rate": "refuses",
    "not_refused_rate": "does not refuse",
    "attack_success_rate": "gives in to",
    "over_refusal_rate": "wrongly refuses",
    "accuracy": "correctly answers",
}
"""What a system does with the prompts that a rate counts."""


def in_known_order(names: Iterable[str], known: Mapping[str, str]) -> list[str]:
    """Return the distinct names: first the known ones in their known order, then the others as they first appear.

    Args:
        names: Names of systems, suites or metrics, with repetitions.
        known: `SYSTEMS`, `SUITES` or `METRICS`.
    """
    distinct = dict.fromkeys(names)
    return [name for name in known if name in distinct] + [name for name in distinct if name not in known]


def display_name(name: str, known: Mapping[str, str]) -> str:
    """Return a name as people read it; of an attacked suite or a defended system, with the attack's or defense's label.

    Args:
        name: Of a system, a suite or a metric.
        known: `SYSTEMS`, `SUITES` or `METRICS`.
    """
    for mark, labeled in (("@", attacks()), ("+", defenses())):
        plain_name, _, label = name.rpartition(mark)
        if plain_name and label.partition(":")[0] in labeled:
            return f"{display_name(plain_name, known)} {mark} {label}"
    return plain(known.get(name, name.replace("_", " ")))


def plain(text: str) -> str:
    """Return text whose every character can stand in a page and a figure: others become U+FFFD.

    They are control characters (but tab and line ends), marks that turn the direction of what follows (U+202A to
    U+202E, U+2066 to U+2069), halves of a character (lone surrogates), and what XML 1.0 forbids.
    """
    return _UNSAFE.sub("\ufffd", text)


_UNSAFE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def describe_prompts(suite: str) -> str:
    """Return how a sentence names the prompts of a suite: "AdvBench prompts"."""
    return _NOUNS.get(suite, f"{display_name(suite, SUITES)} prompts")


def format_percent(value: float) -> str:
    """Format a rate in [0, 1] as a whole percentage; with one decimal if it would round to a false 0 % or 100 %."""
    whole = round(100 * value)
    digits = 1 if whole in (0, 100) and abs(100 * value - whole) >= 0.05 else 0
    return f"{100 * value:.{digits}f} %"


def format_interval(value: float | None, low: float | None, high: float | None, *, is_rate: bool = True) -> str:
    """Format a number and its 95 % interval.

    Args:
        value: The number; None is shown as a dash.
        low: Lower bound; unless both bounds are given, the number stands alone.
        high: Upper bound.
        is_rate: Whether to write percentages, "95.0 % [91, 97]", or plain numbers, "0.948 [0.93, 0.96]".
    """
    if value is None:
        return DASH
    text = f"{100 * value:.1f} %" if is_rate else f"{value:.3f}"
    if low is None or high is None:
        return text
    return f"{text} [{100 * low:z.0f}, {100 * high:z.0f}]" if is_rate else f"{text} [{low:z.2f}, {high:z.2f}]"


def format_value(score: Score) -> str:
    """Format a score's value for a figure: a whole percentage, or two decimals; a dash if there is none."""
    if score.value is None:
        return DASH
    return format_percent(score.value) if _is_rate(score) else f"{score.value:z.2f}"


def is_position_metric(metric: str) -> bool:
    """Return whether a metric is read at the decision position, without an answer."""
    return metric.endswith(("_auroc", "_at_fpr_10", "_at_fpr_1", "_at_fpr_01", "_ece")) or metric.startswith("cross_")


def _is_rate(score: Score) -> bool:
    """Return whether a score is shown as a percentage."""
    return not score.metric.endswith(("_auroc", "_score", "_j", "_per_answer"))


def format_estimate(score: Score | None) -> str:
    """Format a score's value and interval; a dash if there is no score."""
    if score is None:
        return DASH
    return format_interval(score.value, score.low, score.high, is_rate=_is_rate(score))


def format_rate(score: Score | None) -> str:
    """Format a score's value as a whole percentage; a dash if there is none."""
    return DASH if score is None or score.value is None else format_percent(score.value)


def format_bounds(score: Score | None) -> str:
    """Format a score's 95 % interval in per cent: "[91, 97]"; a dash if there is none."""
    if score is None or score.low is None or score.high is None:
        return DASH
    return f"[{100 * score.low:z.0f}, {100 * score.high:z.0f}]"


def format_size(score: Score) -> str:
    """Format a score's n: "100", or "100 × 4" for four answers per prompt."""
    return f"{score.n} × {score.samples}" if score.samples > 1 else str(score.n)


def format_points(difference: float) -> str:
    """Format a difference of two rates in percentage points, with its sign: "+6.0", "-0.9"."""
    return f"{100 * difference:+z.1f}"


def format_points_interval(difference: float, low: float, high: float) -> str:
    """Format a difference of two rates and its interval, in points: "+6.0 [-2.0, +14.0]"."""
    return f"{format_points(difference)} [{format_points(low)}, {format_points(high)}]"


def format_detectable(difference: Difference) -> str:
    """Format the true difference that n could have shown, in whole points; a dash if none is large enough."""
    return DASH if difference.detectable is None else f"{100 * difference.detectable:.0f}"


def format_p(p: float) -> str:
    """Format a p-value: "0.041", or "< 0.001"."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def format_duration(seconds: float) -> str:
    """Format a time span: "4.2 s", "3 min 05 s", "1 h 02 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
