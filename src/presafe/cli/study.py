"""`presafe study`: one recipe under several conditions and seeds, summarized on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from presafe.cli import options
from presafe.cli.output import AsJson, print_json


def study(
    file: Annotated[str, typer.Argument(metavar="STUDY", help="A .toml file, or the name of a shipped study.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", parser=options.folder, metavar="PATH", help="Folder of the study; else studies/<study>."),
    ] = None,
    engine: options.Engine = None,
    show: Annotated[bool, typer.Option("--list", help="List finished and missing runs; run none.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run every condition with every seed; the same command again runs what is missing."""
    from presafe.config.engine import read_engine
    from presafe.study.spec import load_study, study_runs

    place = read_engine(engine or [])
    settings, folder = load_study(file), out or Path("studies") / options.short_name(file)
    study_runs(settings)  # reports a mistake in the study before torch is loaded
    from presafe.study.runner import run_study, study_status

    if show:
        statuses = study_status(settings, folder)
        if as_json:
            print_json([{"run": status.run.name, "is_done": status.result is not None} for status in statuses])
            return
        for status in statuses:
            print(f"{'missing' if status.result is None else 'done':8} {status.run.name}")
        print(f"{sum(status.result is not None for status in statuses)} of {len(statuses)} runs are done")
        return
    run_study(settings, folder, place)
    page, results = folder / "study.md", folder / "study.json"
    if as_json:
        print_json({"study": str(page), "results": str(results)})
    else:
        print(f"study: {page}")
