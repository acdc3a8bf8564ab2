"""`presafe score`: the decision before the CoT as a monitor."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from presafe.cli import options
from presafe.errors import ModelError, PromptError


def score(
    model: options.Model,
    prompt: Annotated[list[str] | None, typer.Argument(help="Prompts to score.")] = None,
    head: Annotated[
        Path | None, typer.Option("--head", help="Folder of an aligned system, e.g. runs/demo/alignment/presafe.")
    ] = None,
    prompts: options.PromptFile = None,
    column: options.Column = None,
    family: options.Family = None,
    tokenizer: options.Tokenizer = None,
    dtype: options.Dtype = "float32",
) -> None:
    """Print the probability of a refusal, read before the thought: one JSON line per prompt.

    It is the head's. A served model is asked through the plug-in, /classify, or the odds of a refusal's first words.
    """
    from presafe.config.engine import is_served
    from presafe.models.decision_head import DecisionHead
    from presafe.workflows.monitor import score_prompts, score_served

    texts = list(prompt or [])
    if not all(text.strip() for text in texts):
        raise PromptError("a prompt is empty.", "Leave it out.")
    if prompts is not None:
        (suite,) = options.read_prompts(prompts, column, "refuse", None).values()
        texts += [prompt.text for prompt in suite]
    if not texts:
        raise PromptError("nothing to score.", "Give prompts, or a file with --prompts.")
    settings = options.read_model(model, family, dtype, tokenizer)
    if is_served(model):
        if head is not None:
            raise ModelError("a served model has its own head: `head` has no effect.", "Leave it out.")
        for number, decision in enumerate(score_served(settings, texts), start=1):
            line = {"prompt": number, "refuse_probability": round(decision.probability, 6), "read_by": decision.way}
            print(json.dumps(line))
        return
    if head is None:
        raise ModelError("the head of a model in this process is named with `head`.", "Name RUN/alignment/SYSTEM.")
    for number, probability in enumerate(score_prompts(settings, texts, DecisionHead(head), head), start=1):
        print(json.dumps({"prompt": number, "refuse_probability": round(probability, 6)}))
