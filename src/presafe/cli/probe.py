"""`presafe probe`: how big is the gap of a model?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from presafe.cli import options


def probe(
    model: options.Model,
    suite: options.Suites = None,
    thinking: options.ThinkingModes = "on,off",
    limit: options.Limit = None,
    data_dir: options.DataDir = None,
    max_tokens: options.MaxTokens = 160,
    batch_size: options.BatchSize = 64,
    family: options.Family = None,
    dtype: options.Dtype = "float32",
    out: Annotated[Path | None, typer.Option("--out", help="Folder; runs/probe-<model> where not named.")] = None,
) -> None:
    """Measure a model as it is: what it refuses with its chain of thought on and off."""
    from presafe.cli.evaluate import measure_and_print

    suites = options.read_suites(suite or ["smolthink_harmful", "smolthink_benign"], data_dir, limit)
    measure_and_print(
        model,
        suites,
        out or options.folder_for("probe", model),
        thinking=options.read_modes(thinking),
        family=family,
        dtype=options.read_dtype(dtype),
        max_tokens=max_tokens,
        batch_size=batch_size,
    )
