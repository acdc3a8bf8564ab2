"""The base's own words on harmless instructions: a short plan, and its answer. Both become rows (`rows`).

A thought must be learned on ordinary requests, too, or it does not end there. Words of the base teach it no opinion
that it does not have. Both are greedy, in plain chat, and only those that ended within their budget are kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from presafe.models.engine import generate_batch
from presafe.models.family import Sampling
from presafe.models.rendering import Renderer
from presafe.prompts.overlap import fold
from presafe.records import Prompt
from presafe.runs.io import read_json, write_text
from presafe.runtime.progress import progress_bar
from qwenthink.rows import OwnWords, instruction_rows

BATCH = 32
"""Instructions that are answered together."""
_PLAN_TOKENS, _ANSWER_TOKENS = 48, 128
"""Token budgets. Ours: what is longer than a row may be is not kept."""
_PLAN = (
    "In one short sentence that begins with 'I will', say how you would answer the request below. Do not answer it yet."
    "\n\nRequest: {text}"
)
_SENTENCE = re.compile(r"^I will\b.*?[.!?](?=\s|$)", re.DOTALL)


def own_words(
    model: Any, renderer: Renderer, prompts: Sequence[Prompt], num_rows: int, file: Path
) -> dict[str, OwnWords]:
    """Return the base's words on instructions, batch by batch, until they make enough rows or all are answered.

    Args:
        model: The base, in eval mode.
        renderer: Its tokenizer, and the family that asks it with CoT off as plain chat.
        prompts: The instructions, in order.
        num_rows: How many rows are wanted.
        file: Where the words are kept; those in it are not asked for again.
    """
    words = {key: OwnWords.model_validate(value) for key, value in read_json(file).items()} if file.exists() else {}

    def rows_so_far() -> int:
        return min(num_rows, len(instruction_rows(prompts, words)))

    missing = [prompt for prompt in prompts if prompt.id not in words]
    with progress_bar("the base's own words", num_rows) as bar:
        count = rows_so_far()
        bar.advance(count)
        for start in range(0, len(missing), BATCH):
            if count == num_rows:
                break
            batch = missing[start : start + BATCH]
            words |= _ask(model, renderer, batch)
            write_text(file, json.dumps({key: own.model_dump() for key, own in words.items()}, ensure_ascii=False))
            bar.advance(rows_so_far() - count)
            count = rows_so_far()
    return words


def _ask(model: Any, renderer: Renderer, prompts: Sequence[Prompt]) -> dict[str, OwnWords]:
    """Return the base's plan and answer for each instruction, by id."""
    plans = _generate(model, renderer, [_PLAN.format(text=prompt.text) for prompt in prompts], _PLAN_TOKENS)
    answers = _generate(model, renderer, [prompt.text for prompt in prompts], _ANSWER_TOKENS)
    return {
        prompt.id: OwnWords(plan=usable_plan(plan or "", prompt.text), answer=answer)
        for prompt, plan, answer in zip(prompts, plans, answers, strict=True)
    }


def usable_plan(text: str, request: str) -> str | None:
    """Return the first sentence of a plan; None if it is no plan, or does little but repeat the request.

    Args:
        text: What the base wrote.
        request: The instruction.
    """
    sentence = _SENTENCE.match(text.strip())
    if sentence is None:
        return None
    plan = sentence[0]
    return None if fold(request) in fold(plan) else plan


def _generate(model: Any, renderer: Renderer, texts: Sequence[str], max_tokens: int) -> list[str | None]:
    """Return greedy answers in plain chat; None for one that did not end within its budget."""
    generations = generate_batch(
        model,
        [renderer.render(text, "off").ids for text in texts],
        max_new_tokens=max_tokens,
        stop_ids=renderer.stop_ids(),
        sampling=Sampling(),
        seeds=[0] * len(texts),
    )
    return [
        renderer.split(generation.ids, "off").answer or None if generation.stopped else None
        for generation in generations
    ]
