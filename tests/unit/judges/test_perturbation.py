"""Perturbations by rule: what they change, and how flips are counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from judge_server import JudgeServer, at_server
from typer.testing import CliRunner

from presafe.cli.main import app
from presafe.judges.agreement import Labelled, load_labelled
from presafe.judges.description import descriptions
from presafe.judges.perturbation import PERTURBATIONS, count_flips, perturbed
from presafe.judges.spec import read_name
from presafe.records import Verdict


@pytest.fixture
def patient_server(judge_server: JudgeServer, monkeypatch: pytest.MonkeyPatch) -> JudgeServer:
    """Give a judge's server time: on a busy machine the first request takes longer than other tests allow."""
    monkeypatch.setattr("presafe.judges.model_judge._ATTEMPT_S", 60)
    monkeypatch.setattr("presafe.judges.model_judge._CALL_S", 120)
    return judge_server


def answer_under(perturbation: str, answer: str) -> str:
    changed = answers_under(perturbation, answer)
    assert len(changed) == 1
    return changed[0]


def answers_under(perturbation: str, answer: str, *, truncated: bool = False) -> list[str]:
    item = Labelled(id="1", case="c", request="r", thought="t", answer=answer, truncated=truncated, label="refuse")
    changed = perturbed([item], next(name for name in PERTURBATIONS if name == perturbation))
    assert all(new.model_copy(update={"answer": answer}) == item for new in changed)  # nothing else changes
    return [new.answer for new in changed]


def test_each_rule_changes_the_form_of_an_answer() -> None:
    said = "I can't tell you. It is not my secret."
    assert answer_under("format", said) == "## Answer\n\n**I can’t tell you.** It is not my secret."
    assert answer_under("paraphrase", said) == "I cannot tell you. It is not my secret."
    assert answer_under("length", said).startswith(said + "\n\n")
    assert answer_under("label_order", said) == said


@pytest.mark.parametrize("perturbation", PERTURBATIONS)
def test_no_answer_is_made_from_nothing(perturbation: str) -> None:
    assert answers_under(perturbation, " ") == []
    assert answers_under(perturbation, "half of a", truncated=True) == []


def test_answers_that_a_rule_leaves_alone_are_not_counted() -> None:
    assert answers_under("paraphrase", "Sorry, no.") == []  # no contraction, and nothing to contract
    assert answers_under("paraphrase", "I know what I am.") == []  # nobody writes "what I'm."
    assert answer_under("paraphrase", "That's it, and I cannot.") == "That's it, and I can't."
    for said in ("It's been long.", "I'd never seen it.", "print('it is')"):  # of two meanings, or code
        assert answers_under("paraphrase", said) == []
    assert "print('it')" in answer_under("format", "Write print('it'). Don't ask.")
    items = load_labelled(None)
    changed = perturbed(items, "paraphrase")
    answer_of = {item.id: item.answer for item in items}
    assert 0 < len(changed) < len(items)
    assert all(item.answer != answer_of[item.id] for item in changed)


def test_flips_are_counted_by_direction() -> None:
    before: tuple[Verdict, ...] = ("refuse", "refuse", "comply", "safe", "refuse", "unjudged")
    after: tuple[Verdict, ...] = ("comply", "refuse", "refuse", "unsafe", "unjudged", "refuse")
    names = "abcdef"
    flips = count_flips("j", "format", dict(zip(names, before, strict=True)), dict(zip(names, after, strict=True)))
    assert (flips.flipped.value, flips.flipped.n) == (0.75, 4)
    assert (flips.to_refuse, flips.to_comply, flips.lost) == (1, 2, 1)


def test_the_order_of_labels_is_reversed_in_the_prompt_only() -> None:
    judge = descriptions()["jailbreakbench"]
    reversed_judge = judge.with_reversed_labels()
    assert reversed_judge.model_copy(update={"prompt": judge.prompt}) == judge
    assert sorted(reversed_judge.prompt.split("\n")) == sorted(judge.prompt.split("\n"))
    for prompt, first in ((judge.prompt, "unsafe"), (reversed_judge.prompt, "safe")):
        defined = [line.partition(":")[0] for line in prompt.split("\n") if line.startswith(("safe:", "unsafe:"))]
        assert defined[0] == first
        # the example of a reply comes in the other order: safe first in the original
        assert prompt.index("verdict {key}: safe") < prompt.index("verdict {key}: unsafe") or first == "safe"
    assert reversed_judge.with_reversed_labels() == judge


def test_the_command_perturbs_strings_and_models(patient_server: JudgeServer, tmp_path: Path) -> None:
    items = [item for item in load_labelled(None) if item.case == "plain_refusal" and "can't" in item.answer][:2]
    labels = tmp_path / "labels.jsonl"
    labels.write_text("".join(item.model_dump_json() + "\n" for item in items), encoding="utf-8")
    model = at_server("jailbreakbench_refusal", "good")
    words = ["agree", str(labels), "--judges", f"refusal_strings,{model}", "--perturb", "--json"]
    done = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "out")], catch_exceptions=False)
    result = json.loads(done.stdout)
    assert {judge["judge"] for judge in result["judges"]} == {"refusal_strings", model}
    assert [(pair["left"], pair["right"], pair["same"]["value"]) for pair in result["pairs"]] == [
        ("refusal_strings", model, 1.0)
    ]
    rows = {(row["judge"], row["perturbation"]): row["flipped"]["n"] for row in result["flips"]}
    # strings have no order of labels; the server answers by "can't" in the answer, which a paraphrase removes
    assert rows == {("refusal_strings", name): 2 for name in PERTURBATIONS[:3]} | {(model, n): 2 for n in PERTURBATIONS}
    asked = [str(body) for body in patient_server.bodies if "refusal" in str(body)]
    orders = {text.index("yes: ") < text.index("no: ") for text in asked}
    assert orders == {True, False}  # the last pass told the classes in the reverse order
    assert result["without_label_order"] == ["refusal_strings"]


def test_label_order_is_of_judges_whose_prompt_lists_classes() -> None:
    # In these three the classes are lines of the prompt. The rubric asks for numbers, StrongREJECT's model for a grade;
    # WildGuard's and HarmBench's prompts name their words in a sentence or not at all, Llama Guard's in its template.
    assert {name for name in descriptions() if read_name(f"{name}=hf/x/y").has_label_order} == {
        "jailbreakbench",
        "jailbreakbench_refusal",
        "xstest",
    }
    assert not read_name("refusal_strings").has_label_order
    assert read_name("majority:jailbreakbench_refusal=hf/x/y+refusal_strings").has_label_order


@pytest.mark.usefixtures("patient_server")
def test_label_order_leaves_out_a_judge_without_classes(tmp_path: Path) -> None:
    items = [item for item in load_labelled(None) if item.case == "plain_refusal" and "can't" in item.answer][:2]
    labels = tmp_path / "labels.jsonl"
    labels.write_text("".join(item.model_dump_json() + "\n" for item in items), encoding="utf-8")
    rubric, classes = (at_server(name, "good") for name in ("strong_reject_rubric", "jailbreakbench_refusal"))
    panel = f"unanimity:{rubric}+{classes}"
    words = ["agree", str(labels), "--judges", f"{rubric},{panel}", "--perturb", "--out", str(tmp_path / "out")]
    result = json.loads(CliRunner().invoke(app, [*words, "--json"], catch_exceptions=False).stdout)
    ordered = {row["judge"] for row in result["flips"] if row["perturbation"] == "label_order"}
    assert ordered == {classes, panel}
    assert result["without_label_order"] == [rubric]
    printed = CliRunner().invoke(app, words, catch_exceptions=False).stdout  # resumes: no judge is asked again
    assert f"Label order: not for {rubric}, as no prompt of theirs lists classes." in " ".join(printed.split())
