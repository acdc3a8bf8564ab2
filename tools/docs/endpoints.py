"""Tables of studies that declared endpoints: what each line found, every condition's rates, and the heads' fit."""

from __future__ import annotations

from typing import Any

from studies import percent, scores, signless_zero, study

from presafe.study.page import FEW
from presafe.study.records import StudyHeadFit

CONDITIONS = {
    "vanilla": "vanilla",
    "sft": "SFT only",
    "head": "head alone, mended",
    "head-as_it_was": "head alone, as it was",
    "head-coins": "head alone, mended, fair coins for p′",
    "start": "L_start alone",
    "both": "both",
    "both-constant": "both, constant p′",
    "both-true_labels": "both, the sets' labels",
}
"""Names of conditions in the studies of this page's tables."""
COLUMNS = {
    "chess:refusal_rate": "chess refused",
    "chess_benign:over_refusal_rate": "other harmless refused",
    "chess_benign:youden_j": "J, chess",
    "chess_benign:matched_head_auroc": "AUROC of the head, chess",
    "chess_benign:matched_refusal_start_auroc": "AUROC of the odds, chess",
    "jailbreakbench:refusal_rate": "JailbreakBench refused",
    "jailbreakbench_benign:over_refusal_rate": "its benign half refused",
    "jailbreakbench_benign:youden_j": "J, JailbreakBench",
    "jailbreakbench_benign:cross_youden_j": "J at 10 %, JailbreakBench",
    "jailbreakbench_benign:matched_head_auroc": "AUROC of the head, JailbreakBench",
    "xstest_safe:cross_youden_j": "J at 10 %, XSTest",
    "xstest_safe:matched_head_auroc": "AUROC of the head, XSTest",
}
"""Column heads by suite and metric."""
_RATES = ("refusal_rate", "over_refusal_rate", "accuracy")


def endpoint_rows(name: str) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the table of declared lines, the primary endpoint first."""
    rows = []
    for line in study(name)["endpoints"]:
        endpoint = line["endpoint"]
        rows.append(
            [
                COLUMNS[f"{endpoint['suite']}:{endpoint['metric']}"],
                CONDITIONS[line["condition"]],
                f"{line['difference']:+.3f} [{line['low']:+.3f}, {line['high']:+.3f}]",
                f"{endpoint['bound']:+.2f}",
                f"{line['p_holm']:.4f}",
                str(line["num_seeds"]),
                verdict(line),
            ]
        )
    return ["endpoint", "condition", "minus SFT only", "bound", "p against 0, Holm", "seeds", "verdict"], rows


def verdict(line: dict[str, Any]) -> str:
    """Return the verdict of a declared line, and whether its head did not fit."""
    word: str = line["verdict"]
    return word if line.get("head_fitted", True) else f"{word}; the head did not fit"


def condition_rows(name: str, *columns: str) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the table of every condition, CoT on: mean over seeds with its interval.

    Args:
        name: The study.
        columns: Suite and metric each, as in `COLUMNS`.
    """
    keys = [tuple(column.split(":")) for column in columns]
    most = [max(row["n"] for key, row in scores(name).items() if key[1:] == ("on", *key_of)) for key_of in keys]
    rows = []
    for condition in ("vanilla", *study(name)["conditions"]):
        own = [scores(name).get((condition, "on", suite, metric)) for suite, metric in keys]
        cells = [_cell(score, number) for score, number in zip(own, most, strict=True)]
        rows.append([CONDITIONS[condition], *cells])
    return ["condition", *(COLUMNS[column] for column in columns)], rows


def head_rows(name: str) -> tuple[list[str], list[list[str]]]:
    """Return head and rows of the table of how well each head learned p′, the seeds side by side."""
    fits: dict[str, list[StudyHeadFit]] = {}
    for row in study(name)["head_fits"]:
        fits.setdefault(row["condition"], []).append(StudyHeadFit.model_validate(row))
    rows = []
    for condition, own in fits.items():
        explained = ["–" if fit.explained is None else f"{100 * fit.explained:.0f} %" for fit in own]
        cosines = [f"{fit.cosine:.2f}" for fit in own]
        rows.append([CONDITIONS[condition], " / ".join(explained), " / ".join(cosines)])
    return ["condition", "explained of p′, by seed", "cosine with its start"], rows


def _cell(score: dict[str, Any] | None, most: int) -> str:
    """Format a score with its interval: rates in percent, all else as it is.

    ‡ marks an interval over seeds alone; † fewer judged prompts than nine tenths of the column's most.
    """
    if score is None:
        return "–"
    mark = " ‡" if score["num_seeds"] > 1 and score.get("over") == "seeds" else ""
    mark += " †" if score["n"] < FEW * most else ""
    if score["metric"] in _RATES:
        return percent(score) + mark
    value, low, high = (signless_zero(f"{score[end]:.2f}") for end in ("value", "low", "high"))
    return f"{value} [{low}, {high}]{mark}"
