"""Write the rows that a system of a run was trained on as a data set for other tools."""

from __future__ import annotations

from pathlib import Path

from presafe.alignment.formats import Format, TextRow, check_format, fits, text_row, write_rows
from presafe.errors import RunError
from presafe.models.loading import load_renderer
from presafe.runtime.progress import console
from presafe.stages.align import off_rows, system_rows
from presafe.stages.respond import responses_of, trains_thinking_off
from presafe.stages.run_folder import RunFolder
from presafe.stages.signal import signals_of
from presafe.stages.systems import aligned_systems


def export_data(run: RunFolder, format: Format, folder: Path, system: str = "presafe") -> list[Path]:
    """Write the training rows of a system, with the recipe's first seed.

    Args:
        run: A run with signals.
        format: Name of the format (`alignment/formats.py`).
        folder: Where to write.
        system: Name of a trained system.

    Returns:
        The paths of the files of rows.

    Raises:
        RunError: the run has no signals yet, trains no such system, or the folder cannot be written.
        SignalError: as the stage align.
    """
    return write_rows(text_rows(run, system, format), format, folder)


def text_rows(run: RunFolder, name: str, format: Format) -> list[TextRow]:
    """Return the training rows of a system as text, for one format.

    Raises:
        RunError: as `export_data`.
        SignalError: as the stage align.
    """
    systems = {system.name: system for system in reversed(aligned_systems(run.recipe))}
    if name not in systems:
        raise RunError(f"{run.path} trains no `system` {name!r}.", f"There are: {', '.join(reversed(systems))}.")
    if not run.is_done("signal"):
        raise RunError(f"{run.path} has no signals yet.", "Resume it with `presafe run`.")
    model = run.recipe.model
    renderer = load_renderer(model.address, model.family, model.tokenizer, trust_remote_code=model.trust_remote_code)
    check_format(format, renderer.family)
    off = off_rows(run) if trains_thinking_off(run.recipe) else []
    rows = system_rows(run, systems[name], renderer, responses_of(run, "own"), signals_of(run), off)
    prompts = {prompt.id: prompt for prompt in run.workload.alignment}
    prompts |= {trace.prompt.id: trace.prompt for trace in run.workload.published.get(name, ())}
    if any(row.prompt_id not in prompts for row in rows):
        raise RunError(
            f"{name} was trained on rows of attacked queries (`align.hardening`), which are not exported.",
            "Export a system of a run without that setting.",
        )
    taught = [row for row in rows if any(label >= 0 for label in row.labels)]
    if left := len(rows) - len(taught):
        console.print(f"  {left} rows teach p′ alone (`planted`), and are left out: other tools would learn their text")
    rows = taught
    texts = [text_row(row, prompts[row.prompt_id], renderer) for row in rows]
    kept = [place for place, text in enumerate(texts) if fits(text, format)]
    if left := len(texts) - len(kept):
        console.print(
            f"  {left} of {len(texts)} rows are left out: CoT is off in them or they were cut, and tools that read "
            f"{format} would render them with CoT on, or end them"
        )
    rows, texts = [rows[place] for place in kept], [texts[place] for place in kept]
    moved = sum(text.decision_index not in (None, row.decision_index) for row, text in zip(rows, texts, strict=True))
    if moved:
        console.print(
            f"  {moved} of {len(rows)} prompts have another number of tokens if they are tokenized as one text, and "
            "their decision_index is that of the text"
        )
    return texts
