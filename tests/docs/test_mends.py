"""The table of reported faults: each has mends, and each mend has a test that failed when the mend was undone."""

from __future__ import annotations

import re

from mends import read, table
from paths import ROOT


def test_every_report_has_mends_or_another_report() -> None:
    declared, _ = read()
    names = [report["of"] for report in declared["report"]]
    assert names[:13] == [f"F{number}" for number in range(1, 14)]
    assert len(names) == len(set(names)) == 30  # 13 kinds of the audit, 15 situations, and two that the harness found
    mended = {mend["of"] for mend in declared["mend"]}
    assert mended <= set(names)
    assert all(report["of"] in mended or report["see"] in mended for report in declared["report"])


def test_every_mend_names_a_test_that_failed_without_it() -> None:
    declared, outcomes = read()
    rules = [mend["rule"] for mend in declared["mend"]]
    assert sorted(outcomes) == sorted(rules)
    assert [rule for rule, outcome in outcomes.items() if not re.match("fails|does not end", outcome)] == []
    for mend in declared["mend"]:
        file, _, name = mend["test"].partition("::")
        assert f"def {name}(" in (ROOT / file).read_text(encoding="utf-8"), mend["test"]


def test_the_table_has_a_row_for_each_mend() -> None:
    declared, _ = read()
    rows = table().split("\n")[2:]
    num_pointers = sum("see" in report for report in declared["report"])
    assert len(rows) == len(declared["mend"]) + num_pointers
    for mend in declared["mend"]:
        (row,) = (row for row in rows if f" | {mend['rule']} (`{mend['commit']}`) | " in row)
        assert mend["test"].partition("::")[2] in row
