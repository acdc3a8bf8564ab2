"""Decoding sensitivity: one model over a grid of temperature × top-p × top-k (the paper's decoding analysis).

    cells/<cell>/    one measurement a cell (`measure`), which resumes and is skipped when it is finished
    results.json     the rows of all cells, each with its temperature, top-p and top-k
    report.html      a figure a suite and mode, and the table with intervals

Greedy decoding knows no top-p and no top-k, so temperature 0 is one cell, with one answer a prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

from presafe.config.recipe import ModelSettings, SamplingSettings
from presafe.errors import RunError
from presafe.records import Prompt, SweepScore, Thinking
from presafe.report.data import ReportData
from presafe.report.page import write_report
from presafe.runs.folder import create_folder, locked, read_timings, resume_folder, timed
from presafe.runs.manifest import sha256_of_prompts
from presafe.runs.ownership import SWEEP, check_ownership
from presafe.runtime.progress import heading
from presafe.workflows.measure import fingerprint, measure


def grid(temperatures: Sequence[float], top_ps: Sequence[float], top_ks: Sequence[int]) -> list[SamplingSettings]:
    """The cells: every combination, and one for temperature 0."""
    cells = []
    for temperature, top_p, top_k in product(temperatures, top_ps, top_ks):
        drawn = SamplingSettings(temperature=temperature, top_p=top_p, top_k=top_k)  # checks the bounds of greedy, too
        cells.append(drawn if temperature else SamplingSettings(temperature=0, top_p=1, top_k=0))
    return list(dict.fromkeys(cells))


def sweep(
    model: ModelSettings,
    suites: Mapping[str, Sequence[Prompt]],
    cells: Sequence[SamplingSettings],
    out: Path,
    *,
    adapter: Path | None = None,
    thinking: Sequence[Thinking] = ("on", "off"),
    samples: int = 1,
    sandbox: str | None = None,
    **settings: Any,
) -> ReportData:
    """Measure every cell; writes `report.html` and `results.json`. Resumes cell by cell.

    Args:
        model: Its address, family and dtype.
        suites: Prompts by suite name.
        cells: Ways of sampling, each with all three settings; see `grid`.
        out: Folder of the sweep.
        adapter: Folder of a PEFT adapter.
        thinking: Modes to measure.
        samples: Answers a prompt, but for greedy cells.
        sandbox: As in `measure`.
        settings: The other settings of `measure`.

    Raises:
        RunError: no cell, or the folder holds something else, or a sweep with other settings or prompts.
        PreSafeError: as `measure`; finished cells are kept.
    """
    if not cells:
        raise RunError("nothing to sweep over: no temperature, top-p or top-k.")
    asked = {
        "model": {**model.model_dump(), "adapter": fingerprint(adapter) if adapter else None},
        "suites": {name: len(prompts) for name, prompts in suites.items()},
        "cells": [name_of(cell) for cell in cells],
        "thinking": list(thinking),
        "samples": samples,
        **{name: value for name, value in settings.items() if name not in ("batch_size", "batch_tokens")},
    }
    rows: list[SweepScore] = []
    check_ownership(out, SWEEP)
    with locked(out):
        open_folder = resume_folder if (out / SWEEP).exists() else create_folder
        manifest = open_folder(out, out / SWEEP, asked, sha256_of_prompts(suites.values()))
        for number, cell in enumerate(cells, start=1):
            heading(f"cell {number} of {len(cells)}", f": {name_of(cell)}")
            with timed(out, name_of(cell)):
                measured = measure(
                    model,
                    suites,
                    out / "cells" / name_of(cell),
                    adapter=adapter,
                    thinking=thinking,
                    samples=samples if cell.temperature else 1,
                    sampling=cell,
                    sandbox=sandbox,
                    **settings,
                )
            rows += [SweepScore(**score.model_dump(), **cell.model_dump()) for score in measured.scores]
        data = ReportData(
            title=f"Decoding sensitivity of {model.address}" + (f" with {adapter}" if adapter else ""),
            recipe=asked,
            manifest=manifest,
            timings_s=read_timings(out),
            sweep=tuple(rows),
        )
        write_report(data, out)
    return data


def name_of(cell: SamplingSettings) -> str:
    """A cell as a folder is called: "t0.6-p0.95-k20"; "greedy"."""
    return f"t{cell.temperature:g}-p{cell.top_p:g}-k{cell.top_k}" if cell.temperature else "greedy"
