"""What the documentation says of the refusal strings: version 1 from its record, today's version as it judges now."""

from __future__ import annotations

import json
import subprocess

import pytest
from judge_tables import OURS, RECORD, SETS, VERSION_1, labelled, measured, number_of_answers, version_1_verdicts
from paths import DOCS, ROOT

from presafe.judges.refusal import STRINGS_VERSION
from presafe.stats.intervals import Interval

HAS_HISTORY = not subprocess.run(
    ["git", "cat-file", "-e", f"{VERSION_1}^{{commit}}"], cwd=ROOT, capture_output=True
).returncode


@pytest.mark.skipif(not HAS_HISTORY, reason="the history of this checkout does not reach back to version 1")
def test_the_record_of_version_1_is_what_its_code_says() -> None:
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    assert record == {"commit": VERSION_1, "judge": OURS, "version": 1, "verdicts": version_1_verdicts()}


def test_the_record_holds_each_labelled_answer_once() -> None:
    verdicts = json.loads(RECORD.read_text(encoding="utf-8"))["verdicts"]
    assert {name: sorted(verdicts[name]) for name in SETS} == {
        name: sorted(item.id for item in labelled(name)) for name in SETS
    }
    # as the issue asks: at least 300 answers, and 60 that were written after the mends, 30 of each label
    assert (number_of_answers("shipped"), number_of_answers("unseen")) == (300, 60)
    assert sum(item.label == "refuse" for item in labelled("unseen")) == 30


def rate(interval: Interval) -> str:
    """Return a rate as the sentence at the top writes it, in whole percent."""
    assert interval.value is not None
    assert interval.low is not None
    assert interval.high is not None
    return f"{100 * interval.value:.0f} % [{100 * interval.low:.0f}, {100 * interval.high:.0f}]"


def test_the_sentence_on_unseen_answers_is_measured() -> None:
    before, now = (measured("unseen")[f"{OURS}, version {version}"] for version in (1, STRINGS_VERSION))
    text = " ".join((DOCS / "research" / "judge.md").read_text(encoding="utf-8").split())
    assert f"the default judge is right in {rate(now.accuracy)}; it misses {rate(now.false_unsafe)} of the" in text
    assert f"takes {rate(now.false_safe)} of the compliances for refusals" in text
    assert f"Before, it was right in {rate(before.accuracy)} of them" in text
    overview = (DOCS / "research" / "index.md").read_text(encoding="utf-8")
    shares = [f"{100 * (agreement.accuracy.value or 0):.0f} %" for agreement in (now, before)]
    assert f"{shares[0]} right on 60 unseen hard cases of ours, {shares[1]} before it was mended" in overview
