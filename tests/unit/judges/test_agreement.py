"""Measure agreement with labels, against values worked out by hand and on the shipped set."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from importlib import resources
from pathlib import Path

import pytest

from presafe.errors import PromptError
from presafe.judges.agreement import (
    Agreement,
    Labelled,
    agreement,
    between,
    cohen_kappa,
    krippendorff_alpha,
    load_labelled,
    offline_verdicts,
    ranked,
)
from presafe.records import Verdict


def offline(judge: str, items: list[Labelled] | None = None) -> Agreement:
    items = items or load_labelled(None)
    return agreement(judge, items, offline_verdicts(judge, items))


PAIRS = [("refuse", "refuse")] * 4 + [("refuse", "comply"), ("comply", "refuse")] + [("comply", "comply")] * 4


def test_kappa_is_agreement_beyond_chance() -> None:
    # observed 0.8; expected 0.5 · 0.5 + 0.5 · 0.5 = 0.5; (0.8 − 0.5) / 0.5
    assert cohen_kappa(PAIRS) == pytest.approx(0.6)
    assert cohen_kappa([("a", "b"), ("b", "a")]) == -1
    assert math.isnan(cohen_kappa([("a", "a")]))


def test_alpha_ignores_unjudged_items() -> None:
    # 20 values, 10 of each; disagreement observed 2 · 2, expected (400 − 200) / 19: 1 − 4 · 19 / 200
    assert krippendorff_alpha(PAIRS) == pytest.approx(0.62)
    assert krippendorff_alpha([*PAIRS, ("refuse", "unjudged")]) == pytest.approx(0.62)
    assert math.isnan(krippendorff_alpha([("a", "a")]))


def test_shipped_set_has_hard_cases_and_no_duplicates() -> None:
    items = load_labelled(None)
    assert len({item.id for item in items}) == len(items) >= 300
    assert len({(item.request, item.thought, item.answer) for item in items}) == len(items)
    labels = Counter(item.label for item in items)
    assert min(labels["refuse"], labels["comply"]) >= 130
    for item in items:
        assert (item.label == "unjudged") == (item.truncated or not item.answer.strip())
    assert any(item.truncated and item.answer for item in items)  # a cut thought in place of an answer


def test_judge_reads_the_answer_and_never_the_thought() -> None:
    wrong = offline("refusal_strings").wrong
    assert wrong["refusal_in_thought_only"][0] == wrong["compliance_in_thought_only"][0] == 0
    assert wrong["empty"][0] == wrong["truncated"][0] == 0


def test_offline_judges_reach_the_documented_numbers() -> None:
    ours, gcg = (offline(name) for name in ("refusal_strings", "gcg_strings"))
    assert ours.accuracy[0] == pytest.approx(284 / 300)
    assert (ours.false_safe[0], ours.false_unsafe[0]) == (pytest.approx(5 / 139), pytest.approx(11 / 161))
    assert gcg.accuracy[0] == pytest.approx(137 / 300)
    assert ours.blank[0] == gcg.blank[0] == 0
    assert ours.kappa.low is not None
    assert ours.kappa.value is not None
    assert ours.kappa.low < ours.kappa.value


def test_unseen_answers_are_judged_less_well() -> None:
    # Written and labelled after the strings were mended: 47 of 60, where version 1 of the strings had 36.
    unseen = load_labelled(Path(str(resources.files("presafe.judges") / "data" / "unseen.jsonl")))
    shipped = {(item.request, item.answer) for item in load_labelled(None)}
    assert not shipped & {(item.request, item.answer) for item in unseen}
    ours = offline("refusal_strings", unseen)
    assert ours.accuracy[:1] + ours.accuracy[3:] == (pytest.approx(47 / 60), 60)
    assert (ours.false_safe[0], ours.false_unsafe[0]) == (pytest.approx(3 / 30), pytest.approx(10 / 30))


def test_two_judges_are_compared_with_each_other() -> None:
    # Four answers that both judged: the same verdict on three. Expected by chance: ½ · ¼ + ½ · ¾ = ½; (¾ − ½) / ½.
    left: list[Verdict] = ["refuse", "safe", "comply", "comply", "unjudged"]
    pair = between("a", left, "b", ["refuse", "comply", "unsafe", "comply", "comply"])
    assert (pair.same.value, pair.same.n) == (0.75, 4)
    assert pair.kappa.value == pytest.approx(0.5)


def test_single_class_of_labels_has_no_kappa() -> None:
    complied = [item for item in load_labelled(None) if item.case == "plain_compliance"]
    row = offline("refusal_strings", complied)
    assert row.accuracy.value == 1
    assert (row.kappa.value, row.alpha.value, row.false_unsafe.n) == (None, None, 0)


def test_empty_or_incomplete_labels_are_errors(tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text("", encoding="utf-8")
    with pytest.raises(PromptError, match="holds no labelled answers"):
        load_labelled(file)
    file.write_text('{"id": "1", "answer": "No."}\n', encoding="utf-8")
    with pytest.raises(PromptError, match=r"labels\.jsonl:1: case: Field required"):
        load_labelled(file)


def test_safe_counts_as_refuse_and_unsafe_as_comply() -> None:
    items = [item for item in load_labelled(None) if item.label != "unjudged"][:4]  # four refusals
    row = agreement("harm", items, ["safe", "safe", "unsafe", "unjudged"])
    assert (row.accuracy.value, row.accuracy.n) == (0.5, 4)
    assert (row.false_unsafe.value, row.unjudged.value) == (0.25, 0.25)
    unsafe = [item.model_copy(update={"label": "unsafe"}) for item in items]
    row = agreement("harm", unsafe, ["safe", "safe", "unsafe", "unjudged"])
    assert (row.accuracy.value, row.false_safe.value) == (0.25, 0.5)


def test_ranked_puts_the_best_first_and_no_kappa_last() -> None:
    items = load_labelled(None)
    mute = agreement("mute", items, ["unjudged"] * len(items))
    mute = mute._replace(kappa=mute.kappa._replace(value=None))
    rows = ranked([offline("gcg_strings"), mute, offline("refusal_strings")])
    assert [row.judge for row in rows] == ["refusal_strings", "gcg_strings", "mute"]


def test_malformed_labels_are_errors_of_one_line(tmp_path: Path) -> None:
    row = {
        "id": "1",
        "case": "c",
        "request": "r",
        "thought": "",
        "answer": "No.",
        "truncated": False,
        "label": "refuse",
    }
    file = tmp_path / "labels.jsonl"

    def complaint(text: str) -> str:
        file.write_text(text, encoding="utf-8")
        with pytest.raises(PromptError) as caught:
            load_labelled(file)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    line = json.dumps(row)
    # failed first: two answers with the same id both got the verdict of the second; of a repeated name the last won
    assert "two answers with the id '1'" in complaint(f"{line}\n{line}\n")
    assert "row 1 has the name 'label' twice" in complaint(line[:-1] + ', "label": "comply"}\n')
    assert "row 1 holds" in complaint(json.dumps(row | {"answer": "\ud83c"}))
    assert "nested deeper" in complaint('{"id": ' + "[" * 100_000)
    assert "labels.jsonl:1: truncated" in complaint(json.dumps(row | {"truncated": "perhaps"}))
    file.write_text("\ufeff" + line + "\r\n", encoding="utf-8")
    assert [item.answer for item in load_labelled(file)] == ["No."]
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(PromptError, match="a pipe or a device"):
        load_labelled(file)
