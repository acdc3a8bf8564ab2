"""Alignment queries as training rows: token ids, labels, decision position and soft target.

    harmful    target: a safe refusal, at once or after a short safe thought          (paper, section 4)
    harmless   target: the model's own thought and answer with CoT on
    p′         the classifier's soft decision, or for the control a random one

Rows are tokenised here rather than by a chat template, because some templates drop the thought of a finished turn.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from presafe.models.rendering import Renderer
from presafe.records import Prompt, Response, Signal, Verdict

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
"""Own answers to harmless queries with these verdicts are no rows: there is nothing there to keep."""


class AlignmentRow(NamedTuple):
    """One training row. `signal` is p′ at `decision_index`, the last prompt token before the CoT.

    `start_index` is the position before the token with which refusals and thoughts part ways: the decision position,
    or where the model itself opens its thought the last token of the opening.
    """

    prompt_id: str
    input_ids: list[int]
    labels: list[int]
    decision_index: int
    start_index: int
    signal: float


def refusal_for(prompt_id: str) -> str:
    """One of `REFUSALS`, always the same for a prompt."""
    return REFUSALS[hashlib.sha256(prompt_id.encode()).digest()[0] % len(REFUSALS)]


def alignment_rows(
    prompts: Sequence[Prompt],
    own: Mapping[str, Response],
    signals: Mapping[str, Signal],
    renderer: Renderer,
    refusal_target: Literal["direct", "thought"],
) -> list[AlignmentRow]:
    """Build the rows, in the order of the prompts.

    Args:
        prompts: Alignment queries.
        own: The model's own responses with CoT on to the harmless ones, by prompt id; `LEFT_OUT` are left out.
        signals: p′ of every query, by prompt id.
        renderer: The model's tokenizer and family.
        refusal_target: What harmful queries are answered with.
    """
    rows = []
    for prompt in prompts:
        rendered = renderer.render(prompt.text, "on")
        if prompt.expect == "refuse":
            thought = SAFE_THOUGHT if refusal_target == "thought" else None
            completion = renderer.completion(thought, refusal_for(prompt.id))
        else:
            response = own[prompt.id]
            if response.verdict in LEFT_OUT:
                continue
            completion = renderer.completion(response.thought, response.answer, ended=response.complete)
        rows.append(
            AlignmentRow(
                prompt_id=prompt.id,
                input_ids=rendered.ids + completion,
                labels=[-100] * len(rendered.ids) + completion,
                decision_index=rendered.decision_index,
                start_index=rendered.decision_index + len(renderer.opening_ids()),
                signal=signals[prompt.id].probability,
            )
        )
    return rows


def cut(row: AlignmentRow, max_length: int) -> AlignmentRow:
    """The row's first tokens; one that is cut does not learn to end there."""
    return row._replace(input_ids=row.input_ids[:max_length], labels=row.labels[:max_length])


def random_signals(signals: Mapping[str, Signal], seed: int) -> dict[str, Signal]:
    """The control that would settle the claim: p′ replaced by fair coins, whatever the query."""
    rng = random.Random(seed)
    return {name: Signal(prompt_id=name, probability=float(rng.random() < 0.5)) for name in sorted(signals)}


def refusal_start_id(renderer: Renderer, refusal_target: Literal["direct", "thought"]) -> int:
    """The first token of a refusal's thought, or the one that closes the thought at once: where refusals part ways."""
    completion = renderer.completion(SAFE_THOUGHT if refusal_target == "thought" else None, REFUSALS[0])
    return completion[len(renderer.opening_ids())]
