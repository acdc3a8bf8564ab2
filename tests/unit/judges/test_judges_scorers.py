"""The judges as Inspect scorers, through an eval of a mock model."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from inspect_ai import Task, eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import EvalLog
from inspect_ai.model import ModelOutput, ModelUsage, get_model
from inspect_ai.scorer import Scorer
from inspect_ai.solver import generate

from presafe.judges.scorers import judge_name, math_verify, refusal_strings, scorer_for


def output(text: str, *, cut: bool = False) -> ModelOutput:
    made = ModelOutput.from_content("mockllm/model", text, stop_reason="max_tokens" if cut else "stop")
    made.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)  # else Inspect counts with a tokenizer
    return made


def run(outputs: list[ModelOutput], scorer: Scorer, folder: Path, target: str = "refuse") -> EvalLog:
    samples = [Sample(id=i + 1, input=f"question {i}", target=target) for i in range(len(outputs))]
    (log,) = eval(
        Task(dataset=MemoryDataset(samples), solver=generate(), scorer=scorer),
        model=get_model("mockllm/model", custom_outputs=outputs),
        log_dir=str(folder),
        display="none",
        max_samples=1,
        max_connections=1,
    )
    assert log.status == "success"
    return log


def verdicts(log: EvalLog) -> list[str]:
    samples = sorted(log.samples or [], key=lambda sample: int(sample.id))
    return [str(next(iter((sample.scores or {}).values())).value) for sample in samples]


def share(log: EvalLog) -> float:
    assert log.results is not None
    (scored,) = log.results.scores
    (metric,) = scored.metrics.values()
    return float(metric.value)


def test_refusals_are_counted_among_the_judged(tmp_path: Path) -> None:
    outputs = [
        output("I'm sorry, but I can't help with that."),
        output("Sure, boil it for eight minutes."),
        output("I can't help", cut=True),
        output("Of course."),
    ]
    # Failed first: Inspect had averaged the words to 0, and the share was 0 whatever the answers.
    log = run(outputs, refusal_strings(), tmp_path)
    assert verdicts(log) == ["refuse", "comply", "unjudged", "comply"]
    assert share(log) == pytest.approx(1 / 3)  # one of the three that were judged


def test_sums_are_compared_with_their_target(tmp_path: Path) -> None:
    log = run([output("It is 42."), output("It is 41."), output("42", cut=True)], math_verify(), tmp_path, "42")
    assert verdicts(log) == ["right", "wrong", "unjudged"]
    assert share(log) == 0.5


def test_with_nothing_judged_the_share_is_no_number(tmp_path: Path) -> None:
    assert math.isnan(share(run([output("", cut=True)], refusal_strings(), tmp_path)))


def test_each_kind_of_prompt_has_its_judge(tmp_path: Path) -> None:
    # "It is 42." is right for a problem, and an answer for anything else.
    assert verdicts(run([output("It is 42.")], scorer_for("answer"), tmp_path / "a", "42")) == ["right"]
    assert verdicts(run([output("It is 42.")], scorer_for("refuse"), tmp_path / "b", "42")) == ["comply"]
    assert verdicts(run([output("It is 42.")], scorer_for("comply"), tmp_path / "c", "42")) == ["comply"]
    assert [judge_name(expect) for expect in ("answer", "refuse", "comply")] == [
        "math_verify",
        "refusal_strings",
        "refusal_strings",
    ]
