"""The judges as Inspect scorers. A score's value is a `Verdict`; thought and answer are never read as one."""

from __future__ import annotations

from collections.abc import Callable

from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Target, metric, scorer
from inspect_ai.solver import TaskState

from presafe.judges.math import judge_math
from presafe.judges.refusal import judge_refusal
from presafe.records import Expect, Verdict


@metric
def share_of(verdict: str) -> Metric:
    """Share of the judged answers with a verdict."""

    def compute(scores: list[SampleScore]) -> float:
        # Not `value`: by now Inspect has averaged it over epochs, and of a word that makes 0.
        verdicts = [(score.score.metadata or {})["verdict"] for score in scores]
        judged = [each for each in verdicts if each != "unjudged"]
        return judged.count(verdict) / len(judged) if judged else float("nan")

    return compute


def _score_with(read: Callable[[TaskState, Target], Verdict]) -> Scorer:
    async def score(state: TaskState, target: Target) -> Score:
        verdict = read(state, target)
        return Score(value=verdict, answer=state.output.completion[:200], metadata={"verdict": verdict})

    return score


def _truncated(state: TaskState) -> bool:
    # Our provider says so of a cut thought only. Of another's, a cut text may be half a thought: it is not judged.
    return state.output.stop_reason == "max_tokens"


@scorer(metrics=[share_of("refuse")])
def refusal_strings() -> Scorer:
    """Refuse or comply, by the strings an answer begins with."""
    return _score_with(lambda state, _: judge_refusal(state.output.completion, truncated=_truncated(state)))


@scorer(metrics=[share_of("right")])
def math_verify() -> Scorer:
    """Right or wrong, by the last number or expression of the answer."""
    return _score_with(
        lambda state, target: judge_math(state.output.completion, target.text, truncated=_truncated(state))
    )


def scorer_for(expect: Expect) -> Scorer:
    """The judge of prompts of one kind."""
    return math_verify() if expect == "answer" else refusal_strings()


def judge_name(expect: Expect) -> str:
    """What `scorer_for` is called in results."""
    return "math_verify" if expect == "answer" else "refusal_strings"
