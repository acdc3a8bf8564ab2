"""`presafe export-data`: a run's training rows as a data set for other tools."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from presafe.errors import RunError


def export_data(
    folder: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder with signals.")],
    format: Annotated[str, typer.Option("--format", help="trl, llamafactory or openai.")],
    system: Annotated[str, typer.Option("--system", help="Trained system whose rows they are.")] = "presafe",
    out: Annotated[Path | None, typer.Option("--out", help="New or empty folder; else RUN/export/FORMAT.")] = None,
) -> None:
    """Write the rows that a run trained on, with p′ and the decision position, for other tools to train on."""
    from presafe.alignment.formats import FORMATS
    from presafe.stages.export import export_data as export
    from presafe.stages.run_folder import RunFolder

    if format not in FORMATS:
        raise RunError(f"no `format` {format!r}.", f"There are: {', '.join(FORMATS)}.")
    if out is not None and out.is_dir() and any(out.iterdir()):
        raise RunError(f"{out} is not empty, and an export overwrites nothing.", "Choose another folder with `out`.")
    target = out or folder / "export" / format
    for path in export(RunFolder.existing(folder), format, target, system):
        print(path)
