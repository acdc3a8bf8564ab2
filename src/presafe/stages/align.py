"""Stage 3: train every method of the recipe that trains, each seed, into `alignment/<system>/`.

What differs between them stands in `methods/`: what queries are answered with, where p′ is from, which terms of

    L = L_SFT + λ · L_align + λ_start · L_start

are on. Base, rows, order, steps and export are the same. Then each adapter is scaled to the recipe's operating point.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from presafe.alignment.fit import HISTORY, FitSettings, fit
from presafe.alignment.labels import labels_of
from presafe.alignment.rows import AlignmentRow, alignment_rows, start_ids, thinking_off_rows, with_thinking_off
from presafe.config.recipe import Recipe
from presafe.errors import ModelError, RunError, SignalError
from presafe.methods.registry import training_of
from presafe.methods.targets import LEFT_OUT
from presafe.models.loading import load_renderer, load_weights, release_model
from presafe.models.rendering import Renderer
from presafe.planning.compute import BYTES
from presafe.planning.shapes import shape_of
from presafe.records import Response, Signal
from presafe.runs.folder import say_set_aside
from presafe.runtime.launcher import alone, claim_device, is_main_process, launched, part
from presafe.runtime.memory import free_bytes, free_memory
from presafe.runtime.progress import console
from presafe.runtime.workers import side_by_side
from presafe.stages.operating_point import OPERATING_POINT, operating_point, set_operating_points, unscaled
from presafe.stages.respond import responses_of, trains_thinking_off
from presafe.stages.run_folder import RunFolder
from presafe.stages.signal import signals_of
from presafe.stages.systems import System, aligned_systems, history_of, system_folder

_RESERVE, _WEIGHTS = 2 * 2**30, 4
"""Free memory a training takes beside others: bytes, and so many times its weights. SmolThink's take half of it."""


def align(run: RunFolder) -> None:
    """Train and scale what is not yet, several systems at a time on a CPU with the cores and the memory for it.

    Under a launcher the processes share each training.
    """
    claim_device()
    recipe = run.recipe
    own = responses_of(run, "own")
    off = _off_rows(run) if trains_thinking_off(recipe) else []
    signals = signals_of(run)
    if is_main_process():
        _set_damaged_aside(run)
    lost = sum(response.verdict in LEFT_OUT for response in own)
    if lost:
        console.print(f"  left out {lost} of {len(own)} harmless queries: the own answer is cut or refuses")
    due = [system for system in aligned_systems(recipe) if not (system_folder(run, system) / HISTORY).exists()]
    release_model()
    with side_by_side(_at_once(recipe, max(len(due), len(unscaled(run))))) as for_each:
        for_each(partial(_train, run=run, own=own, signals=signals, off=off), due)
        part()
        if is_main_process():
            with alone():
                set_operating_points(run, for_each)


def _set_damaged_aside(run: RunFolder) -> None:
    """Set damaged records of a training and of its scale aside: what they are of is done again.

    Raises:
        RunError: a file cannot be renamed.
    """
    for system in aligned_systems(run.recipe):
        folder = system_folder(run, system)
        files: list[tuple[Callable[[RunFolder, System], object], Path]] = [
            (history_of, folder / HISTORY),
            (operating_point, folder / OPERATING_POINT),
        ]
        for read, file in files:
            try:
                if file.exists():
                    read(run, system)
            except RunError as error:
                say_set_aside(file, error.problem, f"{folder.name} is trained and scaled again from its checkpoint.")
                if read is history_of and (folder / OPERATING_POINT).exists():
                    (folder / OPERATING_POINT).unlink()  # of an adapter that is written anew


def _at_once(recipe: Recipe, num_due: int) -> int:
    """How many systems to work on at a time."""
    import torch

    if num_due < 2 or launched() or torch.accelerator.is_available():
        return 1
    try:
        each = _RESERVE + _WEIGHTS * shape_of(recipe.model.address).num_parameters() * BYTES[recipe.model.dtype]
    except ModelError:  # not known how large it is
        return 1
    free_memory()
    return max(1, min(num_due, torch.get_num_threads(), int(free_bytes() / each)))


def _train(
    system: System,
    *,
    run: RunFolder,
    own: Sequence[Response],
    signals: Sequence[Signal],
    off: Sequence[AlignmentRow],
) -> None:
    recipe, settings, folder = run.recipe, run.recipe.align, system_folder(run, system)
    assert system.seed is not None
    training = training_of(system.name)
    is_trusted = recipe.model.trust_remote_code
    renderer = load_renderer(
        recipe.model.address, recipe.model.family, recipe.model.tokenizer, trust_remote_code=is_trusted
    )
    rows = system_rows(run, system, renderer, own, signals, off)
    own_align, own_start = training.lambda_align, training.lambda_start
    release_model()
    fit(
        load_weights(recipe.model.address, recipe.model.dtype, trust_remote_code=is_trusted),
        renderer,
        rows,
        FitSettings(
            align=settings,
            lambda_align=(settings.lambda_align if own_align is None else own_align) if training.head else 0.0,
            lambda_start=(settings.lambda_start if own_start is None else own_start) if training.start else 0.0,
            head=training.head or "decision",
            start_ids=start_ids(renderer, settings.refusal_target, training),
            seed=system.seed,
            folder=folder,
            label=folder.name,
            base_model=recipe.model.address,
        ),
    )
    free_memory()


def system_rows(
    run: RunFolder,
    system: System,
    renderer: Renderer,
    own: Sequence[Response],
    signals: Sequence[Signal],
    off: Sequence[AlignmentRow] = (),
) -> list[AlignmentRow]:
    """The rows that a system is trained on.

    Args:
        run: The run; what the method needs beside own answers and signals is read from it.
        system: A trained system.
        renderer: The model's tokenizer and family.
        own: The model's own answers to the harmless queries.
        signals: The classifier's p′ of every query.
        off: Rows with CoT off, of which the recipe's share is taken.

    Raises:
        SignalError: none of the harmful queries has a target.
        RunError: responses that the method learns from were not sampled.
        PromptError: the file that it learns from cannot be read.
    """
    recipe, training = run.recipe, training_of(system.name)
    prompts, responses = list(run.workload.alignment), list(own)
    if training.steering:
        responses += responses_of(run, system.name)
    if training.needs_data:
        traces = run.workload.published[system.name]
        prompts = [*(trace.prompt for trace in traces), *run.workload.harmless]
        responses += [trace.response for trace in traces]
    rows = alignment_rows(
        prompts,
        {response.prompt_id: response for response in responses},
        labels_of(prompts, {each.prompt_id: each for each in signals}, training.labels, system.seed or 0),
        renderer,
        recipe.align.refusal_target,
        training,
    )
    asked = {prompt.id for prompt in prompts if prompt.expect == "refuse"}
    taught = sum(row.prompt_id in asked for row in rows)
    if asked and not taught:
        raise SignalError(
            f"{system.name} has no target for any of the {len(asked)} harmful queries.",
            "Take it out of align.systems: the model did not refuse when it was told to.",
        )
    if taught < len(asked):
        console.print(f"  {system.name}: {taught} of {len(asked)} harmful queries have a target")
    if not off:
        return rows
    both = with_thinking_off(rows, off, recipe.align.thinking_off_share, system.seed or 0)
    console.print(f"  {system.name}: {len(both) - len(rows)} of {len(both)} rows with CoT off")
    return both


def _off_rows(run: RunFolder) -> list[AlignmentRow]:
    """Every row with CoT off that there is.

    Raises:
        SignalError: there is none.
    """
    model = run.recipe.model
    said = {response.prompt_id: response for response in responses_of(run, "own_off")}
    renderer = load_renderer(model.address, model.family, model.tokenizer, trust_remote_code=model.trust_remote_code)
    rows = thinking_off_rows(run.workload.alignment, said, renderer)
    if not rows:
        raise SignalError(
            f"none of {len(said)} answers with CoT off is as its query expects, so there is nothing to keep.",
            "Leave align.thinking_off_share out.",
        )
    return rows
