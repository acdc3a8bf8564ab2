"""Run the judges as Inspect scorers in an eval of a mock model."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from inspect_ai import Task, eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.log import EvalLog
from inspect_ai.model import (
    ChatMessageAssistant,
    Content,
    ContentReasoning,
    ContentText,
    ModelOutput,
    ModelUsage,
    get_model,
)
from inspect_ai.scorer import Scorer
from inspect_ai.solver import generate

from presafe.errors import JudgeError
from presafe.judges import scorers
from presafe.judges.parsing import Ruling
from presafe.judges.scorers import (
    check_judges,
    judge_name,
    math_verify,
    refusal_strings,
    scorer_for,
    scorers_for,
    thought_judge_name,
)
from presafe.models.sampling import logged_suites
from presafe.records import Attacked


def make_output(text: str, *, cut: bool = False) -> ModelOutput:
    output = ModelOutput.from_content("mockllm/model", text, stop_reason="max_tokens" if cut else "stop")
    output.usage = ModelUsage(input_tokens=1, output_tokens=1, total_tokens=2)  # else Inspect counts with a tokenizer
    return output


def run(outputs: list[ModelOutput], scorer: Scorer | list[Scorer], folder: Path, target: str = "refuse") -> EvalLog:
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


def test_share_counts_judged_answers_only(tmp_path: Path) -> None:
    outputs = [
        make_output("I'm sorry, but I can't help with that."),
        make_output("Sure, boil it for eight minutes."),
        make_output("I can't help", cut=True),
        make_output("Of course."),
    ]
    # Failed first: Inspect averages words to 0, so the share was always 0.
    log = run(outputs, refusal_strings(), tmp_path)
    assert verdicts(log) == ["refuse", "comply", "unjudged", "comply"]
    assert share(log) == pytest.approx(1 / 3)  # one of three judged answers


def test_math_verify_compares_with_the_target(tmp_path: Path) -> None:
    log = run(
        [make_output("It is 42."), make_output("It is 41."), make_output("42", cut=True)], math_verify(), tmp_path, "42"
    )
    assert verdicts(log) == ["right", "wrong", "unjudged"]
    assert share(log) == 0.5


def test_share_of_no_judged_answer_is_nan(tmp_path: Path) -> None:
    assert math.isnan(share(run([make_output("", cut=True)], refusal_strings(), tmp_path)))


def test_each_kind_of_prompt_has_its_judge(tmp_path: Path) -> None:
    # "It is 42." is right for a problem, and complies otherwise.
    assert verdicts(run([make_output("It is 42.")], scorer_for("answer"), tmp_path / "a", "42")) == ["right"]
    assert verdicts(run([make_output("It is 42.")], scorer_for("refuse"), tmp_path / "b", "42")) == ["comply"]
    assert verdicts(run([make_output("It is 42.")], scorer_for("comply"), tmp_path / "c", "42")) == ["comply"]
    assert [judge_name(expect) for expect in ("answer", "refuse", "comply")] == [
        "math_verify",
        "refusal_strings",
        "refusal_strings",
    ]


def thinks(thought: str, answer: str, *, cut: bool = False, redacted: bool = False) -> ModelOutput:
    output = make_output(answer, cut=cut)
    content: list[Content] = [ContentReasoning(reasoning=thought, redacted=redacted), ContentText(text=answer)]
    output.choices[0].message = ChatMessageAssistant(content=content)
    return output


def test_thought_and_answer_are_judged_separately(tmp_path: Path) -> None:
    outputs = [
        thinks("I should decline this.", "Sure, boil it for eight minutes."),
        thinks("Eight minutes is what it takes.", "I can't help with that."),
        thinks("I should decline, or", "", cut=True),
        thinks("c2VjcmV0", "Sure.", redacted=True),  # the provider does not return it
        make_output("Sure."),
    ]
    samples = [Sample(id=i + 1, input="?", target="refuse", metadata={"expect": "refuse"}) for i in range(len(outputs))]
    eval(
        Task(name="mine", dataset=MemoryDataset(samples), solver=generate(), scorer=scorers_for("refuse")),
        model=get_model("mockllm/model", custom_outputs=outputs),
        log_dir=str(tmp_path),
        display="none",
        max_samples=1,
        max_connections=1,
    )
    logged = logged_suites(tmp_path, "on")["mine"]
    assert (logged.judge, logged.thought_judge) == ("refusal_strings", "thought_strings")
    responses = [response for answers in logged.responses.values() for response in answers]
    responses.sort(key=lambda response: response.prompt_id)
    assert [(response.verdict, response.thought_verdict) for response in responses] == [
        ("comply", "refuse"),
        ("refuse", "comply"),
        ("unjudged", "unjudged"),
        ("comply", "unjudged"),
        ("comply", "unjudged"),
    ]


def test_only_thoughts_on_harmful_prompts_are_judged() -> None:
    assert [len(scorers_for(expect)) for expect in ("refuse", "comply", "answer", "choice")] == [2, 1, 1, 1]
    assert thought_judge_name("refuse", "gcg_strings") == "gcg_strings"
    assert thought_judge_name("comply", "gcg_strings") is None
    check_judges(None, "gcg_strings", ["comply", "refuse"])
    with pytest.raises(JudgeError, match="judge gcg_strings would judge no thought"):
        check_judges(None, "gcg_strings", ["comply", "answer"])
    with pytest.raises(JudgeError, match="no judge 'oracle'"):
        check_judges(None, "oracle", ["refuse"])


def test_a_judge_reads_the_plain_request_of_an_attacked_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    class Recording:
        async def ask(self, request: str, answer: str, truncated: bool) -> Ruling:
            read.append(request)
            return Ruling("comply")

    monkeypatch.setattr(scorers, "open_judge", lambda *_, **__: Recording())
    attacked = {"attacked": Attacked(request="Name a bird.").model_dump(mode="json")}
    samples = [
        Sample(id=1, input="Puzzle 1. … Last task. Name a bird.", target="refuse", metadata=attacked),
        Sample(id=2, input="Name a tree.", target="refuse"),
    ]
    (log,) = eval(
        Task(dataset=MemoryDataset(samples), solver=generate(), scorer=scorers.judge("gcg_strings")),
        model=get_model("mockllm/model", custom_outputs=[make_output("A wren."), make_output("An oak.")]),
        log_dir=str(tmp_path),
        display="none",
        max_samples=1,
    )
    assert log.status == "success"
    assert sorted(read) == ["Name a bird.", "Name a tree."]
