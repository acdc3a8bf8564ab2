"""Alignment queries as training rows: token ids, labels, decision position and soft target.

The method (`methods/`) defines the target of a query in words; this module turns it into token ids. It does not use a
chat template for the completion, because some templates drop the thought of a finished turn.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import chain, takewhile
from typing import NamedTuple

from presafe.errors import RunError
from presafe.methods.method import Case, Form, Target, Training
from presafe.methods.targets import REFUSALS, own_words, refuse
from presafe.models.decision_head import RefusalStart
from presafe.models.rendering import RenderedPrompt, Renderer
from presafe.records import Prompt, Response, Signal, Thinking

_EXAMPLE_QUERIES = ("?", "Why")
"""Two different queries: the common beginning of their refusals is that of all refusals of a method."""

_DEFAULT = Training(refuse, own_words)
"""Targets in the recipe's form, those of PreSafe and of SFT."""


class AlignmentRow(NamedTuple):
    """One training row; the positions are indices into `input_ids`."""

    prompt_id: str
    input_ids: list[int]
    labels: list[int]
    """Token ids to learn; −100 is ignored."""
    decision_index: int
    """The last prompt token before the CoT."""
    start_index: int
    """The token before the one in which a refusal and a thought first differ: the decision position, or, if the model
    itself opens its thought, the last token of the opening; with pivots, the token before the pivots first differ."""
    signal: float | None
    """p′ of the query. None for a row with CoT off: only the next-token loss reads it."""
    pool_index: int = 0
    """The last token of `Target.thought` (SafeKey)."""
    kind: str = ""
    """What the query's set expects, "planted" or "thinking_off"; every step holds each kind in proportion
    (design/0002)."""
    thought_index: int = 0
    """The first token of the thought, or of the mark that closes it at once."""


def alignment_rows(
    prompts: Sequence[Prompt],
    responses: Mapping[str, Response],
    signals: Mapping[str, Signal],
    renderer: Renderer,
    refusal_target: Form,
    training: Training = _DEFAULT,
) -> list[AlignmentRow]:
    """Build the rows with CoT on, in the order of the prompts.

    Args:
        prompts: Alignment queries.
        responses: Responses with CoT on, by prompt id: the model's own responses to the harmless queries, and responses
            to the harmful queries if the method learns from them.
        signals: p′ of every query, by prompt id.
        renderer: The model's tokenizer and family.
        refusal_target: Form of the refusals, if the method leaves it to the recipe.
        training: How the method trains; queries without a target are dropped.

    Raises:
        KeyError: a query has no signal, or no response although it needs one.
        RunError: the sampled tokens of a response are not those of its text.
    """
    rows = []
    for prompt in prompts:
        case = Case(prompt.id, prompt.text, responses.get(prompt.id), refusal_target)
        target = (training.refusal if prompt.expect == "refuse" else training.kept)(case)
        if target is not None:
            row = _row(prompt, target, signals[prompt.id].probability, renderer, training)
            rows.append(_without_labels(row) if prompt.planted else row)
    return rows


def _without_labels(row: AlignmentRow) -> AlignmentRow:
    """Return a row that only p′ learns from, up to the token after `start_index`, which L_start reads."""
    length = row.start_index + 2
    return row._replace(input_ids=row.input_ids[:length], labels=[-100] * length, kind="planted")


def thinking_off_rows(
    prompts: Sequence[Prompt], responses: Mapping[str, Response], renderer: Renderer
) -> list[AlignmentRow]:
    """Build rows that preserve the model's behavior with CoT off, in the order of the prompts.

    Three kinds of response are dropped: answers to harmful queries, refusals of harmless ones, and responses that hold
    a thought although CoT was off. So are planted queries.

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
        if prompt.planted or response.verdict == "unjudged" or response.thought or not as_expected:
            continue
        target = Target(None, response.answer, complete=response.complete, token_ids=response.token_ids)
        answer = _sampled_ids(prompt, target, renderer, "off")
        if answer is None:
            answer = renderer.answer_ids(response.answer, ended=response.complete)
        rows.append(plain_row(prompt.id, renderer.render(prompt.text, "off"), answer, "thinking_off"))
    return rows


def plain_row(prompt_id: str, rendered: RenderedPrompt, completion: list[int], kind: str = "") -> AlignmentRow:
    """Build a row without p′: only next-token loss, on the completion of a prompt."""
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
    """Return the rows with CoT on, and a random sample of those with CoT off.

    Args:
        rows: Rows with CoT on.
        off: Rows with CoT off.
        share: Share of rows with CoT off in the result, in [0, 1); smaller if `off` has too few.
        seed: Seed of the sample.
    """
    num_off = min(round(len(rows) * share / (1 - share)), len(off))
    return [*rows, *random.Random(seed).sample(off, num_off)]


def truncate(row: AlignmentRow, max_length: int) -> AlignmentRow:
    """Return the row's first `max_length` tokens; a truncated row does not learn to end there."""
    return row._replace(input_ids=row.input_ids[:max_length], labels=row.labels[:max_length])


def _row(prompt: Prompt, target: Target, signal: float, renderer: Renderer, training: Training) -> AlignmentRow:
    rendered = renderer.render(prompt.text, "on")
    opening = renderer.opening_ids()
    before = rendered.ids + opening
    thought, rest = thought_ids(renderer, target)
    completion = thought + rest
    if target.answer is None:  # a thought left open teaches its own words, and not the opening
        opening_labels = [-100] * len(opening)
    else:
        opening_labels = opening
        closed = renderer.closed_ids(completion) if completion else renderer.close_ids()
        completion = closed + renderer.answer_ids(target.answer, ended=target.complete)
        sampled = _sampled_ids(prompt, target, renderer, "on")
        if sampled is not None and sampled[: len(opening)] == opening:  # else it opened no thought
            completion = sampled[len(opening) :]
    start = len(before) - 1
    if training.pivots:
        unsafe, safe = pivot_ids(renderer, training.pivots)
        start += len(thought) + _num_shared(unsafe, safe)
    return AlignmentRow(
        prompt_id=prompt.id,
        input_ids=before + completion,
        labels=[-100] * len(rendered.ids) + opening_labels + completion,
        decision_index=rendered.decision_index,
        start_index=start,
        signal=signal,
        pool_index=len(before) + len(thought) - 1,
        kind=prompt.expect,
        thought_index=len(before),
    )


def _sampled_ids(prompt: Prompt, target: Target, renderer: Renderer, thinking: Thinking) -> list[int] | None:
    """Return the tokens of a turn as the model sampled them; None if only its text is known.

    Raises:
        RunError: they are another turn than its text.
    """
    if target.token_ids is None:
        return None
    ids = list(target.token_ids)
    try:
        thought, answer, _ = renderer.split(ids, thinking)
    except OverflowError:  # the tokenizer has no such token
        thought, answer = "", None
    if (thought, answer) != (target.thought or "", target.answer):
        raise RunError(
            f"the log of the model's own answers is damaged: the tokens of {prompt.id} are not those of its text.",
            "Delete the folder `responses` of the run, and start it again.",
        )
    return ids


def thought_ids(renderer: Renderer, target: Target) -> tuple[list[int], list[int]]:
    """Return the token ids of a target's thought and of its rest; a thought that is closed ends with its line end."""
    thought, rest = target.thought or "", target.rest
    if target.answer is not None and (thought or rest):
        gap = renderer.family.gap
        thought, rest = (thought, rest + gap) if rest else (thought + gap, rest)
    return renderer.text_ids(thought), renderer.text_ids(rest)


def refusal_start(renderer: Renderer, refusal_target: Form, training: Training = _DEFAULT) -> RefusalStart:
    """Return the token ids with which a method's refusals start, right after the thought's opening.

    If its refusals come after a thought, these are all tokens that the thoughts share, because the first token alone
    may also begin a harmless thought. Otherwise they are the tokens that close the thought at once, followed by the
    first token of any of the project's refusals. A method that learns refusals from data, unknown here, gets the
    refusals of the recipe's form.
    """
    cases = [Case("", query, None, refusal_target) for query in _EXAMPLE_QUERIES]
    from_data = training.needs_data or training.steering
    targets = [refuse(case) if from_data else training.refusal(case) or refuse(case) for case in cases]
    if all(target.thought for target in targets):
        first, second = (renderer.text_ids(target.thought or "") + renderer.text_ids(target.rest) for target in targets)
        *shared, last = first[: max(1, _num_shared(first, second))]
        in_row = [*chain(*thought_ids(renderer, targets[0]))][len(shared)]  # may hold the line end, too
        return RefusalStart(tuple(shared), frozenset({last, in_row}))
    first_ids = {renderer.answer_ids(refusal, ended=True)[0] for refusal in REFUSALS}
    return RefusalStart(tuple(renderer.close_ids()), frozenset(first_ids))


def refusal_start_id(renderer: Renderer, refusal_target: Form, training: Training = _DEFAULT) -> int:
    """Return the first token of `refusal_start`, in which refusals and other thoughts differ."""
    return refusal_start(renderer, refusal_target, training).links[0][0]


def pivot_ids(renderer: Renderer, pivots: tuple[str, str]) -> tuple[list[int], list[int]]:
    """Return the token ids of a method's two pivots, unsafe and safe."""
    unsafe, safe = (renderer.completion_ids(pivot) for pivot in pivots)
    return unsafe, safe


def start_ids(renderer: Renderer, refusal_target: Form, training: Training) -> tuple[int, int | None]:
    """Return the first token of a refusal, for L_start, and the pivot contrasted with it (None: the row's own)."""
    if training.pivots is None:
        return refusal_start_id(renderer, refusal_target, training), None
    unsafe, safe = pivot_ids(renderer, training.pivots)
    shared = _num_shared(unsafe, safe)
    return unsafe[shared], safe[shared]


def _num_shared(left: Sequence[int], right: Sequence[int]) -> int:
    """Return the length of the common prefix of two sequences."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(left, right, strict=False)))
