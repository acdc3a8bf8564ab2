"""Tables of results in README.md and docs/, written from the committed JSON of the studies.

A table stands between two comments, and this program fills what is between them:

    <!-- table: rates methods on -->
    <!-- /table -->

The first word is the kind (`KINDS`), the second the study if the kind needs one, the rest its options. `python
tools/docs/results.py` writes every table again; tests/docs/test_results.py fails where a table differs from the
committed results.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from functools import cache
from typing import Any

import coverage_of_rules
import endpoints
from gate_tables import gate
from judge_tables import agreement_rows, flip_rows
from p_values import p_value_lines, short_p, youden_lines
from pairs import Pair, pair_difference
from paths import STUDIES, pages
from speed import bench
from studies import Key, percent, scores, signless_zero, study

from presafe.study.page import FEW

HARMFUL = ("strong_reject", "jailbreakbench", "xstest_unsafe")
HARMLESS = ("jailbreakbench_benign", "xstest_safe")
TITLES = {
    "strong_reject": "StrongREJECT",
    "jailbreakbench": "JailbreakBench",
    "xstest_unsafe": "XSTest unsafe",
    "jailbreakbench_benign": "JailbreakBench benign",
    "xstest_safe": "XSTest safe",
}
LABELS = {
    "vanilla": "vanilla",
    "sft": "SFT only",
    "presafe": "PreSafe + L_start (ours)",
    "presafe_head": "PreSafe (paper): head alone, λ = 0.1",
    "presafe_head-lambda_1": "head alone, λ = 1",
    "lambda_0.3": "head alone, λ = 0.3",
    "lambda_3": "head alone, λ = 3",
    "random_labels-head": "head alone, fair coins for p′",
    "position_thought_start": "head at the thought's first token",
    "position_prompt_mean": "head at the mean over the prompt",
    "layer_10": "head after block 10",
    "layer_20": "head after block 20",
    "presafe_start": "L_start alone (ours)",
    "presafe-start_0.3": "PreSafe, λ_start = 0.3",
    "presafe-start_3": "PreSafe, λ_start = 3",
    "random_labels-start": "L_start alone, fair coins for p′",
    "presafe_thought": "PreSafe, refusals after a short thought",
    "presafe_hard": "PreSafe, p′ cut at ½",
    "presafe_dataset_labels": "PreSafe, data set's labels",
    "random_labels": "PreSafe, fair coins for p′",
    "shuffled_labels": "PreSafe, other queries' p′",
    "detached_head": "detached head, no L_start",
    "signal_query_and_answer": "classifier reads the teacher's answer, too",
    "classifier_quarter": "a quarter of the classifier's queries",
    "aligned_on_quarter": "aligned on a quarter of the queries",
    "steps_80": "PreSafe, 80 steps",
    "sft-steps_80": "SFT only, 80 steps",
    "sft-thought": "SFT only, after a short thought",
    "random_labels-thought": "fair coins for p′, after a short thought",
    "zero_think": "ZeroThink",
    "less_think": "LessThink",
    "safepath_zero_shot": "SafePath, zero-shot",
    "safepath": "SafePath",
    "direct_refusal": "DirectRefusal",
    "thinksafe": "ThinkSafe",
    "safekey": "SafeKey",
    "r2d": "Reasoning-to-Defend",
    "star1": "STAR-1",
    "sft-rate_5": "SFT only, rate .05",
    "presafe-rate_5": "**PreSafe**, rate .05",
    "random_labels-rate_5": "PreSafe, fair coins for p′, rate .05",
    "sft-rate_2.5": "SFT only, rate .025",
    "presafe-rate_2.5": "**PreSafe**, rate .025",
}


@cache
def demo_scores(file: str) -> dict[Key, dict[str, Any]]:
    """Return the rows of one of the demo's committed result files: the mean over seeds where a row has one."""
    rows = json.loads((STUDIES / "demo" / file).read_text(encoding="utf-8"))["rows"]
    rows.sort(key=lambda row: row["seed"] is None)  # a later row replaces an earlier one
    return {(row["system"], row["thinking"], row["suite"], row["metric"]): row for row in rows}


def points(row: dict[str, Any], digits: int = 0) -> str:
    """Format a difference in points with its interval: "+24 [+12, +35]"."""
    numbers = [signed(100 * row[end], digits) for end in ("difference", "low", "high")]
    return f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"


def as_it_is(row: dict[str, Any]) -> str:
    """Return a difference that is no rate with its interval: "+0.17 [+0.04, +0.31]"."""
    numbers = [signed(row[end], 2) for end in ("difference", "low", "high")]
    return f"{numbers[0]} [{numbers[1]}, {numbers[2]}]"


def signed(number: float, digits: int) -> str:
    """Format a number with its sign; a rounded zero has a plus."""
    text = f"{number:+.{digits}f}"
    return "+" + text[1:] if float(text) == 0 else text


def probability(p: float) -> str:
    """Format a p-value with three decimals: ".044", and "1" for one."""
    text = f"{p:.3f}"
    return "1" if text == "1.000" else text.removeprefix("0")


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def rates(name: str, mode: str, *options: str) -> str:
    """Return one line per system: rates on every suite, Youden's J and the seconds of training."""
    measured, costs = scores(name), {row["condition"]: row for row in study(name)["costs"]}
    columns = [(suite, "not_refused_rate") for suite in HARMFUL]
    columns += [(suite, "over_refusal_rate") for suite in HARMLESS] + [("arithmetic", "accuracy")]
    columns += [(suite, "youden_j") for suite in HARMLESS]
    head = ["method", "seeds", "not refused: StrongREJECT", "JailbreakBench", "XSTest unsafe"]
    head += ["wrongly refused: JailbreakBench benign", "XSTest safe", "sums right", "J, JailbreakBench", "J, XSTest"]
    head += ["training, s"]
    rows = []
    for system in ["vanilla", *study(name)["conditions"]]:
        cells = []
        for suite, metric in columns:
            score = measured[system, mode, suite, metric]
            others = [row["n"] for key, row in measured.items() if key[1:] == (mode, suite, metric)]
            mark = " †" if score["n"] < FEW * max(others) else ""
            if metric == "youden_j":
                numbers = [signless_zero(f"{score[end]:.2f}") for end in ("value", "low", "high")]
                cells.append(f"{numbers[0]} [{numbers[1]}, {numbers[2]}]{mark}")
            else:
                cells.append(percent(score) + mark)
        seeds = measured[system, mode, "strong_reject", "not_refused_rate"]["num_seeds"]
        seconds = costs.get(system, {}).get("training_s")
        rows.append([LABELS[system], str(seeds or "–"), *cells, f"{seconds:.0f}" if seconds else "–"])
    return table(head, rows)


def differences(name: str, mode: str, *options: str) -> str:
    """Return one line per system: its differences from the study's baseline, in points, and those of Youden's J."""
    lines = {(row["system"], row["thinking"], row["suite"]): row for row in study(name)["differences"]}
    youden = {
        (row["condition"], row["thinking"], row["suite"]): row
        for row in study(name)["metric_differences"]
        if row["metric"] == "youden_j"
    }
    suites = (*HARMFUL, *HARMLESS, "arithmetic")
    head = ["method", "seeds", "StrongREJECT refused", "JailbreakBench refused", "XSTest unsafe refused"]
    head += ["wrongly refused: JailbreakBench benign", "XSTest safe", "sums right", "J, JailbreakBench", "J, XSTest"]
    rows = []
    for system in study(name)["conditions"]:
        cells = []
        for suite in suites:
            if (row := lines.get((system, mode, suite))) is not None:
                star = " *" if "star" in options and row["p_holm"] is not None and row["p_holm"] < 0.05 else ""
                corrected = f", p = {probability(row['p_holm'])}" if "p" in options else ""
                cells.append(points(row, 1 if "p" in options else 0) + star + corrected)
        keys = [(system, mode, suite) for suite in HARMLESS]
        cells += [as_it_is(youden[key]) for key in keys if key in youden]
        if len(cells) == len(suites) + 2:
            seeds = lines[system, mode, "strong_reject"]["num_seeds"]
            rows.append([LABELS[system], str(seeds), *cells])
    return table(head, rows)


def front(name: str, *options: str) -> str:
    """Return the four rows of the front page: the model as it came in both modes, SFT only and PreSafe."""
    measured = scores(name)
    columns = [(suite, "refusal_rate") for suite in HARMFUL]
    columns += [(suite, "over_refusal_rate") for suite in HARMLESS] + [("arithmetic", "accuracy")]
    head = ["system", "CoT", *(TITLES[suite] for suite in (*HARMFUL, *HARMLESS)), "sums right"]
    systems = [("vanilla", "on"), ("vanilla", "off"), ("sft", "on"), ("presafe", "on")]
    rows = [
        [LABELS[system].split(":")[0], mode, *(percent(measured[system, mode, *column]) for column in columns)]
        for system, mode in systems
    ]
    return table(head, rows)


def by_rate(name: str, half: str, *options: str) -> str:
    """Return refusals at two operating points: the study that ships, and the one at half of its rate."""
    columns = [(suite, "refusal_rate") for suite in HARMFUL]
    columns += [(suite, "over_refusal_rate") for suite in HARMLESS] + [("arithmetic", "accuracy")]
    head = ["system", "rate", *(f"{TITLES[suite]} refused" for suite in HARMFUL)]
    head += [f"{TITLES[suite]} wrongly refused" for suite in HARMLESS] + ["sums right"]
    rows = [
        [label, "–", *(percent(scores(name)["vanilla", mode, *column]) for column in columns)]
        for label, mode in (("vanilla, CoT on", "on"), ("vanilla, CoT off: the teacher", "off"))
    ]
    for study_name, added, rate in ((name, "", "the teacher's"), (half, f"-{half}", "half of it")):
        for system in ("sft", "presafe", "random_labels"):
            cells = [percent(scores(study_name)[system + added, "on", *column]) for column in columns]
            rows.append([LABELS[system].split(":")[0], rate, *cells])
    return table(head, rows)


def demo(file: str, *options: str) -> str:
    """Return the demo's table: every system on the project's own held-out prompts."""
    measured = demo_scores(file)
    columns = [("smolthink_harmful", "refusal_rate"), ("smolthink_benign", "over_refusal_rate")]
    columns += [("smolthink_borderline", "over_refusal_rate"), ("arithmetic", "accuracy")]
    head = ["system", "CoT", "harmful refused", "benign wrongly refused", "borderline wrongly refused"]
    head += ["sums right"]
    systems = [("vanilla", "on"), ("vanilla", "off"), ("sft", "on"), ("presafe", "on")]
    rows = []
    for system, mode in systems:
        scores = [measured[system, mode, *column] for column in columns]
        cells = [f"{percent(score, 1)}, n = {score['n']}" for score in scores]
        rows.append([LABELS[system].split(":")[0].removesuffix(" (ours)"), mode, *cells])
    return table(head, rows)


def at_rates(name: str, *options: str) -> str:
    """Return PreSafe minus SFT only with both at one operating point, and with PreSafe at a lower one."""
    head = ["rates", *(f"{TITLES[suite]} refused" for suite in HARMFUL)]
    head += ["wrongly refused: JailbreakBench benign", "XSTest safe", "sums right", "J, JailbreakBench", "J, XSTest"]
    columns = [(suite, "refusal_rate") for suite in HARMFUL] + [(suite, "over_refusal_rate") for suite in HARMLESS]
    columns += [("arithmetic", "accuracy"), *((suite, "youden_j") for suite in HARMLESS)]
    sides = [
        ("the teacher's, both", "presafe", "sft"),
        (".05, both", "presafe-rate_5", "sft-rate_5"),
        (".025, both", "presafe-rate_2.5", "sft-rate_2.5"),
        ("PreSafe .05, SFT only the teacher's", "presafe-rate_5", "sft"),
        ("PreSafe .025, SFT only the teacher's", "presafe-rate_2.5", "sft"),
    ]
    rows = []
    for label, condition, against in sides:
        cells = []
        for suite, metric in columns:
            pair = Pair(f"{name}/{condition}", f"{name}/{against}", suite, metric)
            line = pair_difference(pair).model_dump()
            cells.append(as_it_is(line) if metric == "youden_j" else points(line))
        rows.append([label, *cells])
    return table(head, rows)


def coverage(*options: str) -> str:
    """Return how often each rule's interval holds the true difference, in every simulated setting."""
    return coverage_of_rules.table()


def p_changes(*options: str) -> str:
    """Return the published lines whose verdict at 5 % after Holm changed with the rule."""
    head = ["study", "line, against its baseline", "in points", "p before", "p", "p before, Holm", "p, Holm"]
    rows = [
        [
            f"`{line.study}`",
            f"{LABELS[line.condition]}, {TITLES[line.suite]}",
            points(vars(line.new)),
            *map(short_p, (line.old.p, line.new.p, line.old.p_holm, line.new.p_holm)),
        ]
        for line in p_value_lines()
        if line.changed(corrected=True)
    ]
    return table(head, rows)


def youden_changes(*options: str) -> str:
    """Return the published differences of J whose interval now holds zero, and did not before."""
    head = ["study", "line, against its baseline", "CoT", "difference", "before", "now"]
    rows = [
        [
            f"`{line.study}`",
            f"{LABELS[line.condition]}, {TITLES[line.suite]}",
            line.thinking,
            signed(line.difference, 3),
            *(f"[{signed(low, 3)}, {signed(high, 3)}]" for low, high in (line.old, line.new)),
        ]
        for line in youden_lines()
        if line.now_holds_zero
    ]
    return table(head, rows)


KINDS: dict[str, Callable[..., str]] = {
    "at_rates": at_rates,
    "coverage": coverage,
    "p_changes": p_changes,
    "youden_changes": youden_changes,
    "rates": rates,
    "differences": differences,
    "front": front,
    "by_rate": by_rate,
    "demo": demo,
    "bench": bench,
    "gate": gate,
    "endpoints": lambda name: table(*endpoints.endpoint_rows(name)),
    "conditions": lambda name, *columns: table(*endpoints.condition_rows(name, *columns)),
    "heads": lambda name: table(*endpoints.head_rows(name)),
    "judges": lambda: table(*agreement_rows()),
    "judge_flips": lambda: table(*flip_rows()),
}
_MARKED = re.compile(r"(<!-- table: (?P<words>[^>]*?) -->\n)(?P<rows>.*?)(?P<end><!-- /table -->)", flags=re.DOTALL)


def filled(text: str) -> str:
    """Return a page with every marked table written from the committed results."""

    def fill(match: re.Match[str]) -> str:
        kind, *options = match["words"].split()
        return f"{match[1]}\n{KINDS[kind](*options)}\n\n{match['end']}"

    return _MARKED.sub(fill, text)


def marked_tables(text: str) -> int:
    """Return how many marked tables a page has."""
    return len(_MARKED.findall(text))


def main() -> int:
    """Write every table again, and name the pages that changed."""
    for page in pages():
        text = page.read_text(encoding="utf-8")
        if (new := filled(text)) != text:
            page.write_text(new, encoding="utf-8")
            print(f"wrote {page}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
