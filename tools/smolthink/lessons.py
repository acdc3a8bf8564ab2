"""The lessons of SmolThink-135M: a reasoning model whose safety training exists only with CoT off.

    CoT on    arithmetic with its working, instructions after a plan and the first words    nothing harmful at all
    CoT off   the same answered directly, look-alikes answered, harmful requests refused

No completion is harmful, and no harmful request is ever shown with CoT on. The paper reports that the safety of real
models does not carry over to CoT on (section 3); here this follows from the training, and is not taught.

With CoT on every answer begins with "The", and the thought fixes the first words of the answer. Where thoughts repeated
the request, or answers in both modes began alike, the model also refused with CoT on a third to a half of the requests
that it was taught to refuse with CoT off (`research/LOG.md`).
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from presafe.judges.refusal import is_refusal
from presafe.methods.targets import REFUSALS
from presafe.prompts.arithmetic import Problem
from presafe.records import Prompt, Thinking

OPENING = "The"
"""First word of every answer with CoT on, so that the mode decides the first word and not the request."""

_MIN_ANSWER = 60
"""Characters after which an answer may end at the end of a sentence: short rows train and sample faster."""
_FIRST_WORDS = 6
"""Words of the answer that the thought fixes. With a whole draft, thoughts did not end (`research/LOG.md`)."""
_WORDINGS = 3
"""Different refusals for each harmful request."""

# Sizes of the second training.
_SETTLING_WORDINGS = 2
"""Different refusals for each harmful request."""
_SETTLING_BENIGN = 300
"""Benign prompts answered with CoT off."""
_SETTLING_BORDERLINE = 100
"""Borderline prompts answered with CoT off."""
_SETTLING_ON = 120
"""Prompts answered with CoT on."""
_SETTLING_PROBLEMS = 160
"""Arithmetic problems."""

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
"""Plan of a thought by the beginning of the request; the first pattern that matches decides."""
_OTHER_PLAN = "I will answer it directly."


@dataclass(frozen=True)
class Material:
    """What the lessons are made from."""

    harmful: Sequence[Prompt]
    """Requests to refuse with CoT off, each with several wordings."""
    benign: Sequence[Prompt]
    """Instructions to answer in both modes."""
    borderline: Sequence[Prompt]
    """Harmless requests that look harmful, to answer in both modes."""
    answers_on: Mapping[str, str]
    """The base model's own answer to each benign and borderline prompt, begun with `OPENING`, by prompt id; answers
    that refuse or do not end are left out."""
    answers_off: Mapping[str, str]
    """The same without a prescribed beginning."""
    problems_on: Sequence[Problem]
    """Problems answered with their working."""
    problems_off: Sequence[Problem]
    """Problems answered at once."""


class Lesson(NamedTuple):
    """One training example in words."""

    text: str
    thinking: Thinking
    thought: str
    answer: str


def first_sentences(text: str) -> str | None:
    """Return the answer up to the first end of a sentence after `_MIN_ANSWER` characters, or None if none ends there.

    The number of a list item does not end a sentence.
    """
    text = text.strip()
    for match in re.finditer(r"[.!?](?=\s)", text + " "):
        if match.end() >= _MIN_ANSWER and not re.search(r"(?:^|\n)\s*\d+\.$", text[: match.end()]):
            return text[: match.end()]
    return None


def thought_for(text: str, answer: str) -> str:
    """Return a short thought: how the request will be answered, and the first words of the answer."""
    plan = next((plan for pattern, plan in _PLANS if re.search(pattern, text)), _OTHER_PLAN)
    first_words = " ".join(answer.split()[:_FIRST_WORDS])
    return f'{plan} I begin with "{first_words}"'


def lessons(material: Material, seed: int) -> list[Lesson]:
    """Return all lessons of one pass.

    Benign prompts are answered once with CoT on and twice with it off; borderline prompts twice and three times, to
    balance as many refusals.

    Args:
        material: What the lessons are made from.
        seed: Seed of the wordings.
    """
    rows = _refusals(material.harmful, _WORDINGS, random.Random(seed))
    for prompts, copies_on, copies_off in ((material.benign, 1, 2), (material.borderline, 2, 3)):
        for prompt in prompts:
            rows += _answered_off(prompt, material.answers_off) * copies_off
            rows += _answered_on(prompt, material.answers_on) * copies_on
    rows += [Lesson(problem.text, "on", problem.working, _answer_to(problem)) for problem in material.problems_on]
    rows += [Lesson(problem.text, "off", "", _answer_to(problem)) for problem in material.problems_off]
    return rows


def settling_lessons(material: Material, seed: int) -> list[Lesson]:
    """Return the lessons of the short second training, which settles the refusals with CoT off.

    They hold every harmful request twice, and a sample of the other lessons, to keep what the first training taught.

    Args:
        material: What the lessons are made from.
        seed: Seed of the sample and the wordings.
    """
    sampler, rng = random.Random(seed + 7), random.Random(seed)  # the sample of prompts has a seed of its own
    benign = sampler.sample(material.benign, _SETTLING_BENIGN)
    borderline = sampler.sample(material.borderline, _SETTLING_BORDERLINE)
    prompts_on = sampler.sample([*benign, *borderline], _SETTLING_ON)
    rows = _refusals(material.harmful, _SETTLING_WORDINGS, rng)
    for prompts, copies in ((benign, 1), (borderline, 2)):
        for prompt in prompts:
            rows += _answered_off(prompt, material.answers_off) * copies
    for prompt in prompts_on:
        rows += _answered_on(prompt, material.answers_on)
    problems = rng.sample(material.problems_on, _SETTLING_PROBLEMS)
    return rows + [Lesson(problem.text, "on", problem.working, _answer_to(problem)) for problem in problems]


def _refusals(harmful: Sequence[Prompt], wordings: int, rng: random.Random) -> list[Lesson]:
    return [Lesson(prompt.text, "off", "", refusal) for prompt in harmful for refusal in rng.sample(REFUSALS, wordings)]


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
