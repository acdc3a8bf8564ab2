"""Decoding sensitivity: one model over a grid of temperature × top-p × top-k (the paper's decoding analysis).

    cells/<cell>/    one measurement per cell (`measure`); it is resumed, and skipped once it is finished
    results.json     the rows of all cells, each with its temperature, top-p and top-k
    report.html      a figure per suite and mode, and the table with intervals

Greedy decoding has no top-p and no top-k, so temperature 0 is one cell, with one answer per prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path

from presafe.config.measure import MeasureSettings
from presafe.config.recipe import ModelSettings, SamplingSettings
from presafe.errors import RunError
from presafe.records import Prompt, SweepScore
from presafe.report.data import ReportData
from presafe.report.page import write_report
from presafe.runs.folder import create_folder, locked, read_timings, resume_folder, timed
from presafe.runs.manifest import sha256_of_prompts
from presafe.runs.ownership import SWEEP, check_ownership
from presafe.runtime.progress import heading
from presafe.workflows.measure import measure, model_with_adapter, token_budget


def grid(temperatures: Sequence[float], top_ps: Sequence[float], top_ks: Sequence[int]) -> list[SamplingSettings]:
    """Return the cells: every combination, and one cell for temperature 0.

    Raises:
        ValidationError: a number is out of bounds.
    """
    cells = []
    for temperature, top_p, top_k in product(temperatures, top_ps, top_ks):
        cell = SamplingSettings(temperature=temperature, top_p=top_p, top_k=top_k)  # checks the bounds of greedy, too
        cells.append(cell if temperature else SamplingSettings(temperature=0, top_p=1, top_k=0))
    return list(dict.fromkeys(cells))


def sweep(
    model: ModelSettings,
    suites: Mapping[str, Sequence[Prompt]],
    cells: Sequence[SamplingSettings],
    out: Path,
    settings: MeasureSettings = MeasureSettings(),  # noqa: B008  frozen
    *,
    adapter: Path | None = None,
) -> ReportData:
    """Measure every cell; write `report.html` and `results.json`. The same call again resumes cell by cell.

    Args:
        model: Its address, family and dtype.
        suites: Prompts by suite name.
        cells: Ways of sampling, each with all three settings; see `grid`.
        out: Folder of the sweep.
        settings: As in `measure`, without `sampling`, which the cells set. Greedy cells sample one answer per prompt.
        adapter: Folder of a PEFT adapter.

    Raises:
        RunError: no cell, `sampling` is set, or the folder holds something else, or a sweep with other settings or
            prompts.
        PreSafeError: as `measure`; finished cells are kept.
    """
    if not cells:
        raise RunError("nothing to sweep over: no temperature, top-p or top-k.")
    if settings.sampling != SamplingSettings():
        raise RunError(f"a sweep sets how tokens are drawn, and `sampling` is {settings.sampling!r}.", "Leave it out.")
    settings = settings.model_copy(update={"max_tokens": token_budget(model, settings)})
    stored = {
        "model": model_with_adapter(model, adapter),
        "suites": {name: len(prompts) for name, prompts in suites.items()},
        "cells": [name_of(cell) for cell in cells],
        # The seed and the sandbox are kept by the cells: older sweeps have no such keys, and are resumed.
        **settings.model_dump(mode="json", include={"thinking", "samples", "max_tokens", "judge", "judge_thought"}),
    }
    rows: list[SweepScore] = []
    check_ownership(out, SWEEP)
    with locked(out):
        open_folder = resume_folder if (out / SWEEP).exists() else create_folder
        manifest = open_folder(out, out / SWEEP, stored, sha256_of_prompts(suites.values()))
        for number, cell in enumerate(cells, start=1):
            heading(f"cell {number} of {len(cells)}", f": {name_of(cell)}")
            samples = settings.samples if cell.temperature else 1
            in_cell = settings.model_copy(update={"sampling": cell, "samples": samples})
            with timed(out, name_of(cell)):
                measured = measure(model, suites, out / "cells" / name_of(cell), in_cell, adapter=adapter)
            rows += [SweepScore(**score.model_dump(), **cell.model_dump()) for score in measured.scores]
        data = ReportData(
            title=f"Decoding sensitivity of {model.address}" + (f" with {adapter}" if adapter else ""),
            recipe=stored,
            manifest=manifest,
            timings_s=read_timings(out),
            sweep=tuple(rows),
        )
        write_report(data, out)
    return data


def name_of(cell: SamplingSettings) -> str:
    """Return the name of a cell's folder: "t0.6-p0.95-k20"; "greedy"."""
    return f"t{cell.temperature:g}-p{cell.top_p:g}-k{cell.top_k}" if cell.temperature else "greedy"
