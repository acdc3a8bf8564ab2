"""The table of reported faults: what was wrong, what holds now, and the test that fails when the mend is undone."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator
from typing import Any

from paths import ROOT

_FAULTS = ROOT / "tests" / "faults"


def read() -> tuple[dict[str, Any], dict[str, str]]:
    """Return the reports with their mends (`mends.toml`), and what came of undoing each mend, by its rule."""
    declared = tomllib.loads((_FAULTS / "mends.toml").read_text(encoding="utf-8"))
    tried = json.loads((_FAULTS / "undone.json").read_text(encoding="utf-8"))
    return declared, tried["outcomes"]


def table() -> str:
    """Return the table in Markdown: a row for each mend, the report named in the first of its rows."""
    return "\n".join(["| | what was wrong | what holds now | test | undone |", "| --- " * 5 + "|", *_rows()])


def _rows() -> Iterator[str]:
    declared, outcomes = read()
    for report in declared["report"]:
        first = f"**{report['of']}** | {report['wrong']}"
        if "see" in report:
            yield f"| {first} | as {report['see']} | | |"
        for mend in declared["mend"]:
            if mend["of"] != report["of"]:
                continue
            file, _, name = mend["test"].partition("::")
            test = f"`{file.removeprefix('tests/')}`<br>`{name}`"
            yield f"| {first} | {mend['rule']} (`{mend['commit']}`) | {test} | {_shown(outcomes[mend['rule']])} |"
            first = " | "


def _shown(outcome: str) -> str:
    """Return an outcome for a cell: the name of the case that fails as code, cut where it is long."""
    words, _, case = outcome.partition(" [")
    case = re.sub(r"[`|\n]", " ", case.removesuffix("]")).strip()
    return f"{words}: `{case[:30]}{'…' if len(case) > 30 else ''}`" if case else words
