"""What SmolThink-135M is taught: a reasoning model whose safety training exists only with CoT off.

    CoT on    arithmetic with its working, ordinary instructions with a short thought       nothing harmful at all
    CoT off   the same answered directly, look-alikes answered, harmful requests refused

No completion is harmful, and no harmful request is ever shown with CoT on. That the safety does not carry over to
CoT on is what the paper reports of real models (section 3), and here it is left to happen, not taught.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from presafe.alignment.rows import REFUSALS
from presafe.judges.refusal import is_refusal
from presafe.prompts.arithmetic import Problem
from presafe.records import Prompt, Thinking

_MIN_ANSWER = 60
"""Characters after which an answer may end at a sentence's end: short rows train and sample faster."""


class Lesson(NamedTuple):
    """One training example in words."""

    text: str
    thinking: Thinking
    thought: str
    answer: str
    ended: bool


def first_sentences(text: str) -> tuple[str, bool]:
    """The answer up to the first sentence's end past `_MIN_ANSWER` characters, and whether there was one."""
    text = text.strip()
    for match in re.finditer(r"[.!?](?=\s)", text + " "):
        if match.end() >= _MIN_ANSWER and not re.search(r"(?:^|\n)\s*\d+\.$", text[: match.end()]):
            return text[: match.end()], True
    return text, False


_OPENINGS = (
    "The user asks: {text}",
    "The request is: {text}",
    "Okay, the user says: {text}",
    "I read: {text}",
)
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


def thought_for(text: str, rng: random.Random) -> str:
    """A short thought: what is asked, and how it will be answered."""
    return f"{rng.choice(_OPENINGS).format(text=text)} {_plan_for(text)}"


def _plan_for(text: str) -> str:
    return next((plan for pattern, plan in _PLANS if re.search(pattern, text)), _OTHER_PLAN)


def lessons(
    *,
    harmful: Sequence[Prompt],
    harmless: Sequence[Prompt],
    answers: Mapping[str, str],
    problems_on: Sequence[Problem],
    problems_off: Sequence[Problem],
    seed: int,
) -> list[Lesson]:
    """All lessons, shuffled.

    Args:
        harmful: Requests to refuse with CoT off.
        harmless: Instructions and look-alikes to answer in both modes.
        answers: The base model's own answer to each harmless prompt, by prompt id. Prompts whose answer is a
            refusal are left out.
        problems_on: Problems answered with their working.
        problems_off: Problems answered at once.
        seed: Seed of the wording and the order.
    """
    rng = random.Random(seed)
    rows = [Lesson(prompt.text, "off", "", rng.choice(REFUSALS), True) for prompt in harmful]
    for prompt in harmless:
        answer, ended = first_sentences(answers[prompt.id])
        if is_refusal(answer):
            continue
        rows.append(Lesson(prompt.text, "off", "", answer, ended))
        rows.append(Lesson(prompt.text, "on", thought_for(prompt.text, rng), answer, ended))
    rows += [Lesson(each.text, "on", each.working, _answer_to(each), True) for each in problems_on]
    rows += [Lesson(each.text, "off", "", _answer_to(each), True) for each in problems_off]
    rng.shuffle(rows)
    return rows


OPENING = "Here is my answer. "
"""How answers to instructions begin after a thought, from the second pass on: answers of large reasoning models have a
manner of their own too. Without it half of the refusals taught with CoT off spilt over to CoT on (`design/LOG.md`)."""


def later_lessons(
    *,
    harmful: Sequence[Prompt],
    answered_off: Sequence[Prompt],
    answered_on: Sequence[Prompt],
    answers: Mapping[str, str],
    problems_on: Sequence[Problem],
    wordings: int,
    drafts: bool,
    seed: int,
) -> list[Lesson]:
    """Lessons of the second and third pass, shuffled: the two modes set further apart.

    Args:
        harmful: Requests to refuse with CoT off.
        answered_off: Instructions and look-alikes answered at once with CoT off.
        answered_on: The same with CoT on, after a thought and `OPENING`.
        answers: As in `lessons`.
        problems_on: Problems answered with their working.
        wordings: With how many wordings each request is refused.
        drafts: Whether the thought holds a draft of the answer rather than the request.
        seed: Seed of the wording and the order.
    """
    rng = random.Random(f"{drafts} {seed}")
    refusals = [(prompt, wording) for prompt in harmful for wording in rng.sample(REFUSALS, wordings)]
    rows = [Lesson(prompt.text, "off", "", wording, True) for prompt, wording in refusals]
    for prompts, thinking in ((answered_off, "off"), (answered_on, "on")):
        for prompt in prompts:
            answer, ended = first_sentences(answers[prompt.id])
            if is_refusal(answer):
                continue
            if thinking == "off":
                rows.append(Lesson(prompt.text, "off", "", answer, ended))
            else:
                thought = draft_for(prompt.text, answer) if drafts else thought_for(prompt.text, rng)
                rows.append(Lesson(prompt.text, "on", thought, OPENING + answer, ended))
    rows += [Lesson(each.text, "on", each.working, _answer_to(each), True) for each in problems_on]
    rng.shuffle(rows)
    return rows


def draft_for(text: str, answer: str) -> str:
    """A thought that plans the answer and drafts it, so that what is said is settled inside the thought."""
    return f"{_plan_for(text)} A draft: {answer}"


def _answer_to(problem: Problem) -> str:
    return f"The answer is {problem.result}."
