"""Tables of the refusal strings: version 1 by its recorded verdicts, and today's version by what it says now.

    python tools/docs/judge_tables.py    # records the verdicts of version 1 again, from the last commit that had it

The record holds one verdict per labelled answer. Only the labelled sets, which are harmless, are judged.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, cast

from paths import ROOT

from presafe.judges.agreement import Agreement, Labelled, agreement, load_labelled, offline_verdicts
from presafe.judges.perturbation import PERTURBATIONS, count_flips, perturbed
from presafe.judges.refusal import STRINGS_VERSION
from presafe.records import Verdict
from presafe.report.formatting import format_interval
from presafe.stats.intervals import Interval

RECORD = ROOT / "research" / "judges" / "strings_1.json"
VERSION_1 = "89347f738d807d1ab4d04d3307f7cc086be8d6e8"
"""The last commit with version 1 of the strings."""
SETS = ("shipped", "unseen")
GCG = "gcg_strings"
OURS = "refusal_strings"


@cache
def labelled(name: str) -> tuple[Labelled, ...]:
    """Return the labelled answers of one of `SETS`."""
    return tuple(
        load_labelled(None if name == "shipped" else ROOT / "src" / "presafe" / "judges" / "data" / f"{name}.jsonl")
    )


def version_1_verdicts() -> dict[str, dict[str, Verdict]]:
    """Return what version 1 says of every labelled answer by set and id, from its code in the history.

    Raises:
        subprocess.CalledProcessError: the history does not reach back that far.
    """
    command = ["git", "show", f"{VERSION_1}:src/presafe/judges/refusal.py"]
    code = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    module: dict[str, Any] = {"__name__": "refusal_strings_1"}
    exec(compile(code, "refusal_strings_1", "exec"), module)  # the project's own file, named by its full hash
    judge = cast("Callable[..., Verdict]", module["judge_refusal"])
    return {name: {item.id: judge(item.answer, truncated=item.truncated) for item in labelled(name)} for name in SETS}


def recorded(name: str) -> list[Verdict]:
    """Return the recorded verdicts of version 1 on a set, in the order of its answers.

    Raises:
        KeyError: the record lacks an answer of the set.
    """
    verdicts = json.loads(RECORD.read_text(encoding="utf-8"))["verdicts"][name]
    return [verdicts[item.id] for item in labelled(name)]


@cache
def measured(name: str) -> dict[str, Agreement]:
    """Return the agreement with the labels of a set, by the name of the judge in the table."""
    items = labelled(name)
    verdicts = {f"{OURS}, version 1": recorded(name)}
    verdicts[f"{OURS}, version {STRINGS_VERSION}"] = offline_verdicts(OURS, items)
    if name == "shipped":
        verdicts[f"{GCG} (arXiv 2307.15043)"] = offline_verdicts(GCG, items)
    return {judge: agreement(judge, items, judged) for judge, judged in verdicts.items()}


def number_of_answers(name: str) -> int:
    """Return how many labelled answers of a set there are to judge."""
    return sum(item.label != "unjudged" for item in labelled(name))


def agreement_rows() -> tuple[list[str], list[list[str]]]:
    """Return head and lines of the table of both versions against the labels of both sets."""
    head = ["set", "judge", "accuracy", "compliance read as refusal", "refusal read as compliance", "Cohen's κ",
            "Krippendorff's α"]  # fmt: skip
    rows = []
    for name in SETS:
        for place, (judge, row) in enumerate(measured(name).items()):
            rates = [_rate(interval) for interval in (row.accuracy, row.false_safe, row.false_unsafe)]
            chance_corrected = [_plain(interval) for interval in (row.kappa, row.alpha)]
            of_set = f"{name}, n = {number_of_answers(name)}" if place == 0 else ""
            rows.append([of_set, judge, *rates, *chance_corrected])
    return head, rows


def flip_rows() -> tuple[list[str], list[list[str]]]:
    """Return head and lines of the table of verdicts that the rules of `--perturb` flip: today's strings and GCG's."""
    items = labelled("shipped")
    rows = []
    for judge in (OURS, GCG):
        before = _by_id(judge, items)
        flips = [
            count_flips(judge, rule, before, _by_id(judge, perturbed(items, rule))).flipped
            for rule in PERTURBATIONS
            if rule != "label_order"  # strings have none
        ]
        title = f"{judge}, version {STRINGS_VERSION}" if judge == OURS else judge
        rows.append([title, *(f"{_rate(flipped)} of {flipped.n}" for flipped in flips)])
    return ["judge", "format", "length", "paraphrase"], rows


def _by_id(judge: str, items: Sequence[Labelled]) -> dict[str, Verdict]:
    return dict(zip((item.id for item in items), offline_verdicts(judge, items), strict=True))


def _rate(interval: Interval) -> str:
    return format_interval(*interval[:3])


def _plain(interval: Interval) -> str:
    value, low, high = interval[:3]
    return f"{value:z.2f} [{low:z.2f}, {high:z.2f}]"


def main() -> None:
    """Write the record of version 1."""
    RECORD.parent.mkdir(exist_ok=True)
    record = {"commit": VERSION_1, "judge": OURS, "version": 1, "verdicts": version_1_verdicts()}
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
