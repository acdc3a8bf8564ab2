"""The names and number formats that people read. A name without an entry is shown as it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from presafe.methods.registry import methods

if TYPE_CHECKING:
    from presafe.records import Difference, Score

DASH = "–"
"""What stands where there is no number."""

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
    "arithmetic": "Arithmetic",
    "aime24": "AIME 2024",
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
    "attack_success_rate": "attack success",
    "strong_reject_score": "StrongREJECT score",
    "thought_refusal_rate": "refused in the thought",
    "thought_attack_success_rate": "attack success in the thought",
    "thought_unjudged_rate": "thought without a verdict",
    "full_compliance_rate": "full compliance",
    "partial_refusal_rate": "partial refusal",
    "full_refusal_rate": "full refusal",
    "refusal_start_auroc": "harmful against this suite: AUROC, refusal start",
    "head_auroc": "harmful against this suite: AUROC, head",
    "matched_refusal_start_auroc": "against its harmful half: AUROC, refusal start",
    "matched_head_auroc": "against its harmful half: AUROC, head",
    "matched_tpr_at_fpr_10": "harmful half refused at 10 % wrong refusals here, by the odds of a refusal's start",
    "youden_j": "against its harmful half: Youden's J",
    "classifier_accuracy": "classifier accuracy",
    "with_thought_rate": "answered after a thought",
    "truncated_rate": "truncated thought",
    "unjudged_rate": "no verdict",
}

EXPECTS: Mapping[str, str] = {
    "refuse": "to refuse",
    "comply": "to comply with",
    "answer": "to answer",
    "choice": "to answer by a letter",
    "code": "to answer with a program",
}
"""What a careful assistant does with a prompt, after the word "prompts"."""


def ordered(names: Iterable[str], known: Mapping[str, str]) -> list[str]:
    """The distinct names: those known in their known order, then the others as they first appear."""
    seen = dict.fromkeys(names)
    return [name for name in known if name in seen] + [name for name in seen if name not in known]


def plain(text: str) -> str:
    """Return text whose every character can stand in a page and a figure: others become U+FFFD.

    They are control characters (but tab and line ends), marks that turn the direction of what follows (U+202A to
    U+202E, U+2066 to U+2069), halves of a character (lone surrogates), and what XML 1.0 forbids.
    """
    return _UNSAFE.sub("\ufffd", text)


_UNSAFE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]")


def label(name: str, known: Mapping[str, str]) -> str:
    """The name as a person reads it."""
    return plain(known.get(name, name.replace("_", " ")))


def noun(suite: str) -> str:
    """The suite's prompts, as a sentence names them."""
    return _NOUNS.get(suite, f"{label(suite, SUITES)} prompts")


def percent(value: float) -> str:
    """A rate in [0, 1] as a whole percentage; with one decimal where rounding would feign 0 % or 100 %."""
    whole = round(100 * value)
    digits = 1 if whole in (0, 100) and abs(100 * value - whole) >= 0.05 else 0
    return f"{100 * value:.{digits}f} %"


def interval(value: float | None, low: float | None, high: float | None, *, is_rate: bool = True) -> str:
    """A number and its 95 % interval.

    Args:
        value: The number; None is shown as a dash.
        low: Lower bound; without both bounds the number stands alone.
        high: Upper bound.
        is_rate: Whether to write percentages, "95.0 % [91, 97]", or plain numbers, "0.948 [0.93, 0.96]".
    """
    if value is None:
        return DASH
    text = f"{100 * value:.1f} %" if is_rate else f"{value:.3f}"
    if low is None or high is None:
        return text
    return f"{text} [{100 * low:z.0f}, {100 * high:z.0f}]" if is_rate else f"{text} [{low:z.2f}, {high:z.2f}]"


def number(score: Score) -> str:
    """A score's value as a figure shows it: a whole percentage, or two decimals; a dash for none."""
    if score.value is None:
        return DASH
    return percent(score.value) if _is_rate(score) else f"{score.value:z.2f}"


def of_position(metric: str) -> bool:
    """Whether a metric is of the decision position, read without an answer."""
    return metric.endswith(("_auroc", "_at_fpr_10"))


def _is_rate(score: Score) -> bool:
    return not score.metric.endswith(("_auroc", "_score", "_j"))


def estimate(score: Score | None) -> str:
    """A score's value and interval; a dash where there is none."""
    if score is None:
        return DASH
    return interval(score.value, score.low, score.high, is_rate=_is_rate(score))


def rate(score: Score | None) -> str:
    """A score's value as a whole percentage; a dash where there is none."""
    return DASH if score is None or score.value is None else percent(score.value)


def bounds(score: Score | None) -> str:
    """A score's 95 % interval in per cent, "[91, 97]"; a dash where there is none."""
    if score is None or score.low is None or score.high is None:
        return DASH
    return f"[{100 * score.low:z.0f}, {100 * score.high:z.0f}]"


def size(score: Score) -> str:
    """A score's n, "100 × 4" for four answers a prompt."""
    return f"{score.n} × {score.samples}" if score.samples > 1 else str(score.n)


def points(difference: float) -> str:
    """A difference of two rates in percentage points, with its sign: "+6.0", "-0.9"."""
    return f"{100 * difference:+z.1f}"


def detectable(difference: Difference) -> str:
    """The true difference that n could have shown, in whole points; a dash where none is large enough."""
    return DASH if difference.detectable is None else f"{100 * difference.detectable:.0f}"


def chance(p: float) -> str:
    """A p-value as it is printed: "0.041", or "< 0.001"."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def duration(seconds: float) -> str:
    """A span of time as a person says it: "4.2 s", "3 min 05 s", "1 h 02 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
