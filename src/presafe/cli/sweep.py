"""`presafe sweep`: how much do a model's rates depend on how its tokens are drawn?"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from presafe.cli import options
from presafe.errors import PreSafeError

Number = TypeVar("Number", int, float)


def sweep(
    model: options.Model,
    adapter: Annotated[Path | None, typer.Option("--adapter", help="Folder of a PEFT adapter.")] = None,
    suite: options.Suites = None,
    temperature: Annotated[str, typer.Option("--temperature", help="Temperatures, with commas.")] = "0,0.6,1.0",
    top_p: Annotated[str, typer.Option("--top-p", help="Nucleus masses, with commas; 1 keeps all.")] = "0.95",
    top_k: Annotated[str, typer.Option("--top-k", help="Numbers of likely tokens, with commas; 0 keeps all.")] = "0",
    samples: Annotated[int, typer.Option("--samples", min=1, help="Answers a prompt; greedy cells take one.")] = 1,
    thinking: options.ThinkingModes = "on",
    limit: options.Limit = None,
    data_dir: options.DataDir = None,
    max_tokens: options.MaxTokens = None,
    batch_size: options.BatchSize = 64,
    batch_tokens: options.BatchTokens = 65_536,
    judge: options.Judge = None,
    judge_thought: options.JudgeThought = None,
    sandbox: options.Sandbox = None,
    family: options.Family = None,
    tokenizer: options.Tokenizer = None,
    dtype: options.Dtype = "float32",
    out: options.Out = None,
) -> None:
    """Measure MODEL over temperature × top-p × top-k; the same command again goes on where it stopped."""
    from presafe.report.results import sweep_table
    from presafe.runtime.progress import PlainConsole
    from presafe.workflows.sweep import grid
    from presafe.workflows.sweep import sweep as run_sweep

    suites = options.read_suites(suite or ["smolthink_harmful"], data_dir, limit)
    modes = options.read_modes(thinking)
    lists = (_numbers(temperature, "--temperature", float), _numbers(top_p, "--top-p", float))
    with options.bounds_of_sampling():
        cells = grid(*lists, _numbers(top_k, "--top-k", int))
    settings = (adapter, sorted(suites), cells, samples, modes, limit, max_tokens, sandbox, family, tokenizer, dtype)
    judged = options.judges_of(judge, judge_thought)
    folder = out or options.folder_for("sweep", model, *settings, *judged)
    named = options.read_model(model, family, dtype, tokenizer)
    data = run_sweep(
        named,
        suites,
        cells,
        folder,
        adapter=adapter,
        thinking=modes,
        samples=samples,
        sandbox=sandbox,
        max_tokens=options.read_budget(max_tokens, named),
        batch_size=batch_size,
        batch_tokens=batch_tokens,
        judge=judge,
        judge_thought=judge_thought,
    )
    console = PlainConsole()
    console.print(sweep_table(data))
    console.print(f"report: {folder / 'report.html'}", soft_wrap=True)


def _numbers(words: str, option: str, kind: Callable[[str], Number]) -> list[Number]:
    try:
        return [kind(word.strip()) for word in words.split(",")]
    except ValueError as error:
        raise PreSafeError(f"{option} takes numbers with commas between them, got {words!r}.") from error
