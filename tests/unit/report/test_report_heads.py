"""A report says how well each head learned p′, and gives no verdict on one that did not fit."""

from __future__ import annotations

import json

import pytest

from presafe.records import HeadFit
from presafe.report.data import ReportData
from presafe.report.headline import head_sentences
from presafe.report.results import results_json

# constant 0.69, floor 0.09: a loss of 0.24 explains (0.69 − 0.24) / 0.60 = 75 %, one of 0.45 explains 40 %
FITTED = HeadFit(loss=0.24, floor=0.09, constant=0.69, cosine=0.31)
NOT_FITTED = FITTED.model_copy(update={"loss": 0.45, "cosine": 0.95})
NOTHING = HeadFit(loss=0.42, floor=0.41, constant=0.41, cosine=0.99)


def test_head_sentences_name_the_fit() -> None:
    fitted, not_fitted, nothing = head_sentences({"presafe": FITTED, "sft": NOT_FITTED, "random_labels": NOTHING})
    assert "fitted: it explains 75 % of what p′ varies" in fitted
    assert "cosine with its start 0.31" in fitted
    assert "verdict" not in fitted
    assert "did not fit: it explains 40 % of what p′ varies, less than half" in not_fitted
    assert not_fitted.endswith("This run carries no verdict on what the head is worth.")
    assert "had nothing to fit" in nothing


def test_results_hold_the_fit_of_heads() -> None:
    data = ReportData(title="t", recipe={}, manifest={}, timings_s={}, head_fits={"presafe": NOT_FITTED})
    (head,) = json.loads(results_json(data))["head_fits"].values()
    assert head["explained"] == pytest.approx(0.4)
    assert head["is_fitted"] is False
