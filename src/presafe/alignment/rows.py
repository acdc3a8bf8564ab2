"""Alignment queries as training rows: token ids, labels, decision position and soft target.

What a query is answered with is the method's (`methods/`), in words; here it becomes token ids. Rows are tokenised here
rather than by a chat template, because some templates drop the thought of a finished turn.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import NamedTuple

from presafe.methods.method import Case, Form, Target, Training
from presafe.methods.targets import REFUSALS, own_words, refuse
from presafe.models.decision_head import RefusalStart
from presafe.models.rendering import RenderedPrompt, Renderer
from presafe.records import Prompt, Response, Signal

_SOME_QUERIES = tuple(
    Prompt(id="", text=text, category="none", split="none", licence="none", expect="refuse") for text in ("?", "Why")
)
"""Stand for any harmful queries, where only what all refusals begin with is asked for."""

_DEFAULT = Training(refuse, own_words)
"""Targets in the recipe's form, as PreSafe and SFT alone have them."""


class AlignmentRow(NamedTuple):
    """One training row. `signal` is p′ at `decision_index`, the last prompt token before the CoT.

    `start_index` is the position before the token with which refusals and thoughts part ways: the decision position,
    or where the model itself opens its thought the last token of the opening; with pivots, the position before the
    token with which the two first differ. `pool_index` is the last token of the thought's first part (SafeKey), and
    `thought_index` the first token of the thought, or of what closes it at once. `kind` is what the query's set
    expects, or that its CoT is off; every step gets its share of each (design/0002). A row with CoT off has no p′: no
    loss but that of the next token reads it.
    """

    prompt_id: str
    input_ids: list[int]
    labels: list[int]
    decision_index: int
    start_index: int
    signal: float | None
    pool_index: int = 0
    kind: str = ""
    thought_index: int = 0


def alignment_rows(
    prompts: Sequence[Prompt],
    responses: Mapping[str, Response],
    signals: Mapping[str, Signal],
    renderer: Renderer,
    refusal_target: Form,
    training: Training = _DEFAULT,
) -> list[AlignmentRow]:
    """Build the rows, in the order of the prompts.

    Args:
        prompts: Alignment queries.
        responses: Responses with CoT on, by prompt id: the model's own to the harmless queries, and to the harmful ones
            where the method learns from some.
        signals: p′ of every query, by prompt id.
        renderer: The model's tokenizer and family.
        refusal_target: What harmful queries are answered with, where the method leaves it to the recipe.
        training: The method's; those without a target are left out.

    Raises:
        KeyError: a query has no signal, or no response where it needs one.
    """
    rows = []
    for prompt in prompts:
        case = Case(prompt, responses.get(prompt.id), refusal_target)
        target = (training.refusal if prompt.expect == "refuse" else training.kept)(case)
        if target is not None:
            rows.append(_row(prompt, target, signals[prompt.id].probability, renderer, training))
    return rows


def thinking_off_rows(
    prompts: Sequence[Prompt], responses: Mapping[str, Response], renderer: Renderer
) -> list[AlignmentRow]:
    """Rows that keep what the model does with CoT off, in the order of the prompts.

    Left out is what must not be kept, a harmful query that was answered, a harmless one that was refused; and what came
    after a thought all the same.

    Args:
        prompts: Alignment queries.
        responses: The model's own responses to them with CoT off, by prompt id.
        renderer: The model's tokenizer and family.

    Raises:
        KeyError: a query has no response.
    """
    rows = []
    for prompt in prompts:
        response = responses[prompt.id]
        as_expected = (response.verdict == "refuse") == (prompt.expect == "refuse")
        if response.verdict == "unjudged" or response.thought or not as_expected:
            continue
        answer = renderer.answer_ids(response.answer, ended=response.complete)
        rows.append(plain_row(prompt.id, renderer.render(prompt.text, "off"), answer, "thinking_off"))
    return rows


def plain_row(prompt_id: str, rendered: RenderedPrompt, completion: list[int], kind: str = "") -> AlignmentRow:
    """A row without p′: next-token loss on what follows a prompt, and nothing else."""
    return AlignmentRow(
        prompt_id=prompt_id,
        input_ids=rendered.ids + completion,
        labels=[-100] * len(rendered.ids) + completion,
        decision_index=rendered.decision_index,
        start_index=len(rendered.ids) - 1,
        signal=None,
        kind=kind,
    )


def with_thinking_off(
    rows: Sequence[AlignmentRow], off: Sequence[AlignmentRow], share: float, seed: int
) -> list[AlignmentRow]:
    """Rows with CoT on and, of those with CoT off, as many as make a share of all; drawn by a seed."""
    num = min(round(len(rows) * share / (1 - share)), len(off))
    return [*rows, *random.Random(seed).sample(off, num)]


def cut(row: AlignmentRow, max_length: int) -> AlignmentRow:
    """The row's first tokens; one that is cut does not learn to end there."""
    return row._replace(input_ids=row.input_ids[:max_length], labels=row.labels[:max_length])


def _row(prompt: Prompt, target: Target, signal: float, renderer: Renderer, training: Training) -> AlignmentRow:
    rendered = renderer.render(prompt.text, "on")
    opening = renderer.opening_ids()
    before = rendered.ids + opening
    thought, rest = renderer.text_ids(target.thought or ""), renderer.text_ids(target.rest)
    # A thought left open teaches its own words and nothing beside them.
    learned = [*opening] if target.answer is not None else [-100] * len(opening)
    written = thought + rest
    if target.answer is not None:
        written = [*written, *renderer.close_ids(), *renderer.answer_ids(target.answer, ended=target.complete)]
    start = len(before) - 1
    if training.pivots:
        start += len(thought) + _num_shared(*pivot_ids(renderer, training.pivots))
    return AlignmentRow(
        prompt_id=prompt.id,
        input_ids=before + written,
        labels=[-100] * len(rendered.ids) + learned + written,
        decision_index=rendered.decision_index,
        start_index=start,
        signal=signal,
        pool_index=len(before) + len(thought) - 1,
        kind=prompt.expect,
        thought_index=len(before),
    )


def refusal_start(renderer: Renderer, refusal_target: Form, training: Training = _DEFAULT) -> RefusalStart:
    """What a method's refusals start with, right after the thought's opening.

    All that the thoughts of its refusals share, whose first token alone may begin a harmless thought, too; or all that
    closes the thought at once, and the first word of any of the project's refusals. Where the method knows no refusal
    before it sees data, that of the recipe's form.
    """
    cases = [Case(query, None, refusal_target) for query in _SOME_QUERIES]
    from_data = training.needs_data or training.steering
    targets = [refuse(case) if from_data else training.refusal(case) or refuse(case) for case in cases]
    if all(target.thought for target in targets):
        one, other = ([*renderer.text_ids(each.thought or ""), *renderer.text_ids(each.rest)] for each in targets)
        *shared, last = one[: max(1, _num_shared(one, other))]
        return RefusalStart(tuple(shared), frozenset({last}))
    words = {renderer.answer_ids(refusal, ended=True)[0] for refusal in REFUSALS}
    return RefusalStart(tuple(renderer.close_ids()), frozenset(words))


def refusal_start_id(renderer: Renderer, refusal_target: Form, training: Training = _DEFAULT) -> int:
    """The token with which a method's refusals and other thoughts part ways: the first of `refusal_start`."""
    return refusal_start(renderer, refusal_target, training).links[0][0]


def pivot_ids(renderer: Renderer, pivots: tuple[str, str]) -> tuple[list[int], list[int]]:
    """Token ids of a method's two pivots, unsafe and safe."""
    unsafe, safe = (renderer.completion_ids(pivot) for pivot in pivots)
    return unsafe, safe


def start_ids(renderer: Renderer, refusal_target: Form, training: Training) -> tuple[int, int | None]:
    """The token that a refusal starts with, for L_start, and the pivot set against it; None is each row's own token."""
    if training.pivots is None:
        return refusal_start_id(renderer, refusal_target, training), None
    unsafe, safe = pivot_ids(renderer, training.pivots)
    shared = _num_shared(unsafe, safe)
    return unsafe[shared], safe[shared]


def _num_shared(left: Sequence[int], right: Sequence[int]) -> int:
    """Tokens that two sequences begin with alike."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))
