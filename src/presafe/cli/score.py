"""`presafe score`: the decision before the CoT as a monitor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from presafe.cli import options
from presafe.errors import PromptError


def score(
    model: options.Model,
    prompt: Annotated[list[str] | None, typer.Argument(help="Prompts to score.")] = None,
    head: Annotated[
        Path, typer.Option("--head", help="Folder of an aligned system, e.g. runs/demo/alignment/presafe.")
    ] = ...,  # type: ignore[assignment]
    prompts: options.PromptFile = None,
    column: options.Column = None,
    family: options.Family = None,
    dtype: options.Dtype = "float32",
) -> None:
    """Print the head's probability of a refusal, read before the thought: one JSON line per prompt."""
    from presafe.models.decision_head import DecisionHead
    from presafe.workflows.monitor import score_prompts

    texts = list(prompt or [])
    if not all(text.strip() for text in texts):
        raise PromptError("a prompt is empty.", "Leave it out.")
    if prompts is not None:
        (suite,) = options.read_prompts(prompts, column, "refuse", None).values()
        texts += [prompt.text for prompt in suite]
    if not texts:
        raise PromptError("nothing to score.", "Give prompts, or a file with --prompts.")
    settings = options.read_model(model, family, dtype)
    for number, probability in enumerate(score_prompts(settings, texts, DecisionHead(head), head), start=1):
        print(json.dumps({"prompt": number, "refuse_probability": round(probability, 6)}))
