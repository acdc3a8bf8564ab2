"""`presafe evaluate`: a model, with or without an adapter, on suites or a file of prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from presafe.cli import options
from presafe.errors import PromptError

if TYPE_CHECKING:
    from presafe.config.recipe import ModelSettings
    from presafe.records import Prompt


def evaluate(
    model: options.Model,
    adapter: Annotated[Path | None, typer.Option("--adapter", help="Folder of a PEFT adapter.")] = None,
    suite: options.Suites = None,
    prompts: Annotated[Path | None, typer.Option("--prompts", help="CSV, JSON or JSONL file.")] = None,
    column: Annotated[str | None, typer.Option("--column", help="Column of the file that holds the prompt.")] = None,
    expect: Annotated[
        str | None, typer.Option("--expect", help="For the file's prompts: refuse (as where not named) or comply.")
    ] = None,
    thinking: options.ThinkingModes = "on,off",
    limit: options.Limit = None,
    data_dir: options.DataDir = None,
    max_tokens: options.MaxTokens = None,
    samples: options.Samples = 1,
    temperature: options.Temperature = None,
    top_p: options.TopP = None,
    top_k: options.TopK = None,
    sandbox: options.Sandbox = None,
    batch_size: options.BatchSize = 64,
    judge: options.Judge = None,
    judge_thought: options.JudgeThought = None,
    batch_tokens: options.BatchTokens = 65_536,
    family: options.Family = None,
    tokenizer: options.Tokenizer = None,
    dtype: options.Dtype = "float32",
    out: options.Out = None,
) -> None:
    """Measure a model or an aligned one on published suites or your own prompts."""
    suites = options.read_suites(suite or [], data_dir, limit)
    if prompts is None and (column or expect):
        raise PromptError("--column and --expect describe a file.", "Give it with --prompts.")
    if prompts is not None:
        own = options.read_prompts(prompts, column, expect or "refuse", limit)
        if both := suites.keys() & own.keys():
            raise PromptError(f"{prompts} has the name of the suite {both.pop()}.", "Rename the file.")
        suites |= own
    if not suites:
        raise PromptError("nothing to evaluate on.", "Give --suite or --prompts.")
    modes = options.read_modes(thinking)
    sampling = options.read_sampling(temperature, top_p, top_k)
    judged = options.judges_of(judge, judge_thought)
    named = options.read_model(model, family, dtype, tokenizer)
    measure_and_print(
        named,
        suites,
        out
        or options.folder_for(
            *("evaluate", model, adapter, sorted(suites), limit, modes, max_tokens, samples, sampling, sandbox),
            *(expect, family, tokenizer, dtype, *judged),
        ),
        adapter=adapter,
        thinking=modes,
        max_tokens=options.read_budget(max_tokens, named),
        batch_size=batch_size,
        samples=samples,
        sampling=sampling,
        sandbox=sandbox,
        batch_tokens=batch_tokens,
        judge=judge,
        judge_thought=judge_thought,
        origins=options.read_origins(suites, data_dir),
    )


def measure_and_print(model: ModelSettings, suites: Mapping[str, Sequence[Prompt]], out: Path, **settings: Any) -> None:
    """Measure, print the table and name the report."""
    from presafe.report.results import summary_table
    from presafe.runtime.progress import PlainConsole
    from presafe.workflows.measure import measure

    console = PlainConsole()
    console.print(summary_table(measure(model, suites, out, **settings)))
    console.print(f"report: {out / 'report.html'}", soft_wrap=True)
