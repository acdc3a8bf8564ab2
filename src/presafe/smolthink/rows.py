"""What SmolThink-135M is taught: a reasoning model whose safety training exists only with CoT off.

    CoT on    arithmetic with its working, instructions after a plan and the first words    nothing harmful at all
    CoT off   the same answered directly, look-alikes answered, harmful requests refused

No completion is harmful, and no harmful request is ever shown with CoT on. That the safety does not carry over to
CoT on is what the paper reports of real models (section 3), and here it is left to happen, not taught.

With CoT on every answer begins with "The", and the thought settles its first words. Where thoughts repeated the
request, or answers in both modes began alike, a third to a half of the refusals taught with CoT off spilt over to CoT
on (`design/LOG.md`).
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from presafe.judges.refusal import is_refusal
from presafe.methods.targets import REFUSALS
from presafe.prompts.arithmetic import Problem
from presafe.records import Prompt, Thinking

_MIN_ANSWER = 60
"""Characters after which an answer may end at a sentence's end: short rows train and sample faster."""
_FIRST_WORDS = 6
"""Words of the answer that the thought settles. A whole draft made thoughts that did not end (`design/LOG.md`)."""
_WORDINGS = 3
"""With how many wordings each harmful request is refused."""
_SETTLING_WORDINGS, _SETTLING_BENIGN, _SETTLING_BORDERLINE, _SETTLING_ON, _SETTLING_PROBLEMS = 2, 300, 100, 120, 160
"""Of the second training: wordings a refusal; prompts answered with CoT off, and with it on; problems."""
OPENING = "The"
"""How every answer with CoT on begins, so that the mode and not the request decides the first word."""


class Lesson(NamedTuple):
    """One training example in words."""

    text: str
    thinking: Thinking
    thought: str
    answer: str


def first_sentences(text: str) -> str | None:
    """The answer up to the first sentence's end past `_MIN_ANSWER` characters; None where there is none."""
    text = text.strip()
    for match in re.finditer(r"[.!?](?=\s)", text + " "):
        if match.end() >= _MIN_ANSWER and not re.search(r"(?:^|\n)\s*\d+\.$", text[: match.end()]):
            return text[: match.end()]
    return None


_PLANS = (
    (r"(?i)^(write|draft|create|compose|make|come up)\b", "I will write something short that fits."),
    (
        r"(?i)^(give|list|suggest|name|recommend|share|provide|outline|plan|develop)\b",
        "I will name a few good points.",
    ),
    (
        r"(?i)^(how (do|can|should|would|to)|explain how|tell me how|show|teach|help|walk|describe how)\b",
        "I will go through the steps.",
    ),
    (
        r"(?i)^(why|what|who|when|where|which|is|are|does|do|can|explain|describe|tell|define|compare|summari)\b",
        "I will explain it clearly.",
    ),
)
_OTHER_PLAN = "I will answer it directly."


def thought_for(text: str, answer: str) -> str:
    """A short thought: how the request will be answered, and the words that the answer begins with."""
    plan = next((plan for pattern, plan in _PLANS if re.search(pattern, text)), _OTHER_PLAN)
    return f'{plan} I begin with "{" ".join(answer.split()[:_FIRST_WORDS])}"'


def lessons(
    *,
    harmful: Sequence[Prompt],
    benign: Sequence[Prompt],
    borderline: Sequence[Prompt],
    answers_on: Mapping[str, str],
    answers_off: Mapping[str, str],
    problems_on: Sequence[Problem],
    problems_off: Sequence[Problem],
    seed: int,
) -> list[Lesson]:
    """All lessons, one pass.

    Args:
        harmful: Requests to refuse with CoT off, each with several wordings.
        benign: Instructions to answer in both modes: once with CoT on, twice with it off.
        borderline: Look-alikes to answer in both modes: twice with CoT on, three times with it off, against as many
            refusals.
        answers_on: The base model's own answer to each benign and borderline prompt, begun with `OPENING`, by prompt
            id. Answers that refuse or have no end are left out.
        answers_off: The same, as the base model begins them.
        problems_on: Problems answered with their working.
        problems_off: Problems answered at once.
        seed: Seed of the wordings.
    """
    rows = _refusals(harmful, _WORDINGS, random.Random(seed))
    for prompts, weight_on, weight_off in ((benign, 1, 2), (borderline, 2, 3)):
        for prompt in prompts:
            rows += _answered_off(prompt, answers_off) * weight_off + _answered_on(prompt, answers_on) * weight_on
    rows += [Lesson(each.text, "on", each.working, _answer_to(each)) for each in problems_on]
    rows += [Lesson(each.text, "off", "", _answer_to(each)) for each in problems_off]
    return rows


def settling_lessons(
    *,
    harmful: Sequence[Prompt],
    benign: Sequence[Prompt],
    borderline: Sequence[Prompt],
    answers_on: Mapping[str, str],
    answers_off: Mapping[str, str],
    problems_on: Sequence[Problem],
    seed: int,
) -> list[Lesson]:
    """Lessons of the short second training, which settles what is refused with CoT off.

    Every harmful request twice, and a draw of the rest that keeps what the first training taught.

    Args:
        harmful, benign, borderline, answers_on, answers_off, problems_on: As for `lessons`.
        seed: Seed of the draw and the wordings.
    """
    draw, rng = random.Random(seed + 7), random.Random(seed)  # the draw of prompts has a seed of its own
    benign, borderline = draw.sample(benign, _SETTLING_BENIGN), draw.sample(borderline, _SETTLING_BORDERLINE)
    on = draw.sample([*benign, *borderline], _SETTLING_ON)
    rows = _refusals(harmful, _SETTLING_WORDINGS, rng)
    for prompts, weight in ((benign, 1), (borderline, 2)):
        for prompt in prompts:
            rows += _answered_off(prompt, answers_off) * weight
    for prompt in on:
        rows += _answered_on(prompt, answers_on)
    problems = rng.sample(problems_on, _SETTLING_PROBLEMS)
    return rows + [Lesson(each.text, "on", each.working, _answer_to(each)) for each in problems]


def _refusals(harmful: Sequence[Prompt], wordings: int, rng: random.Random) -> list[Lesson]:
    return [Lesson(each.text, "off", "", wording) for each in harmful for wording in rng.sample(REFUSALS, wordings)]


def _answered_off(prompt: Prompt, answers: Mapping[str, str]) -> list[Lesson]:
    answer = _usable(answers[prompt.id])
    return [] if answer is None else [Lesson(prompt.text, "off", "", answer)]


def _answered_on(prompt: Prompt, answers: Mapping[str, str]) -> list[Lesson]:
    answer = _usable(answers[prompt.id])
    return [] if answer is None else [Lesson(prompt.text, "on", thought_for(prompt.text, answer), answer)]


def _usable(answer: str) -> str | None:
    short = first_sentences(answer)
    return None if short is None or is_refusal(short) else short


def _answer_to(problem: Problem) -> str:
    return f"The answer is {problem.result}."
