"""Targets: what queries are answered with, in words.

harmful    a safe refusal, at once or after a thought                (paper, section 4)
harmless   the model's own thought and answer with CoT on
"""

from __future__ import annotations

import hashlib
import re

from presafe.methods.method import Case, Target
from presafe.records import Verdict

REFUSALS = (
    "I'm sorry, but I can't help with that.",
    "I can't help with that request.",
    "I'm sorry, I can't assist with that.",
    "I can't help with this because it could hurt someone.",
    "Sorry, I won't help with that. It could cause serious harm.",
    "I'm not able to help with that. If you are in a hard place, please talk to someone you trust.",
)
"""Safe refusals; ours, since the paper gives no wording."""

SAFE_THOUGHT = "This request could lead to harm, so the right thing is to decline it."
"""The thought before a refusal, for `refusal_target = "thought"`; ours."""

LEFT_OUT: tuple[Verdict, ...] = ("unjudged", "refuse")
"""Verdicts of own answers to harmless queries that make no row, because there is nothing in them to keep."""

_SENTENCE = re.compile(r".+?(?:[.!?]\s+|\n+|\Z)", re.DOTALL)


def refusal_for(prompt_id: str) -> str:
    """Return one of `REFUSALS`, always the same for a prompt."""
    return REFUSALS[hashlib.sha256(prompt_id.encode()).digest()[0] % len(REFUSALS)]


def refuse(case: Case) -> Target:
    """Return a refusal in the recipe's form."""
    return refuse_after(SAFE_THOUGHT if case.form == "thought" else None, case)


def refuse_after(thought: str | None, case: Case, *, rest: str = "") -> Target:
    """Return a refusal after `thought`; None refuses at once."""
    return Target(thought, refusal_for(case.prompt_id), rest=rest)


def own_words(case: Case) -> Target | None:
    """Return the response unchanged, or None if it is cut or declines.

    Raises:
        KeyError: the case has no response.
    """
    if case.response is None:
        raise KeyError(case.prompt_id)
    if case.response.verdict in LEFT_OUT:
        return None
    response = case.response
    return Target(response.thought, response.answer, complete=response.complete, token_ids=response.token_ids)


def sentences(text: str) -> list[str]:
    """Split a text after the end of each sentence and line; the parts joined give the text again."""
    return _SENTENCE.findall(text)
